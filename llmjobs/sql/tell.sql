-- Called by: incidents.Teller.tell, a duty of every worker.
-- Parameters: again_s: for so long nobody else tells of what is taken here; if this worker dies, somebody does after it.
-- Literal: {rows}, the most taken at once. With the first of a kind up to 1,000 others of it go.
-- Returns: of each incident taken its id, kind, level, whether its opening (else its end) is to be told, the names and ids of
-- what it is about (model null: all), reason, words, opened_at, closed_at, tell_failures.
-- Takes what operators are still to be told of. The network comes after this transaction, never inside.
-- Locks: the incidents, SKIP LOCKED. Index: incident_untold, which holds nothing once all is told.
with first as materialized (
    select id, kind, opening_told_at is null as is_opening
    from llmjobs_incident
    where (opening_told_at is null or (closed_at is not null and closing_told_at is null))
        and tell_again_at <= statement_timestamp()
    order by tell_again_at, id
    limit {rows}
    for no key update skip locked
), more as materialized (
    -- Many that began or ended together are one message.
    select i.id
    from (select distinct kind, is_opening from first where kind <> 'breaker') as k
    cross join lateral (
        select id
        from llmjobs_incident
        where (opening_told_at is null or (closed_at is not null and closing_told_at is null))
            and tell_again_at <= statement_timestamp()
            and kind = k.kind and (opening_told_at is null) = k.is_opening
        order by tell_again_at, id
        limit 1000
        for no key update skip locked
    ) as i
), taken as (
    update llmjobs_incident as i
    set tell_again_at = statement_timestamp() + make_interval(secs => %(again_s)s)
    where i.id in (select id from first union select id from more)
    returning i.*
)
select t.id, t.kind, t.level, t.opening_told_at is null as is_opening, t.provider_id, t.pool_id, t.client_id,
    coalesce(p.name, 'provider ' || t.provider_id) as provider, m.name as model, k.name as tier,
    coalesce(c.name, 'client ' || t.client_id) as client, t.reason, t.words, t.opened_at, t.closed_at, t.tell_failures
from taken as t
left join llmjobs_provider as p on p.id = t.provider_id
left join llmjobs_model as m on m.id = t.pool_id
left join llmjobs_tier as k on k.id = t.tier_id
left join llmjobs_client as c on c.id = t.client_id
order by t.id
