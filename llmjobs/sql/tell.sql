-- Called by: incidents.Teller.tell, a duty of every worker.
-- Parameters: again_s: for so long nobody else tells of what is taken here; if this worker dies, somebody does after it.
-- Literal: {rows}, the most taken at once.
-- Returns: of each incident taken its id, whether its opening (else its end) is to be told, provider, model (null: all),
-- reason, words, opened_at, closed_at, tell_failures.
-- Takes what operators are still to be told of. The network comes after this transaction, never inside.
-- Locks: the incidents, SKIP LOCKED. Index: incident_untold, which holds nothing once all is told.
with due as materialized (
    select id
    from llmjobs_incident
    where (opening_told_at is null or (closed_at is not null and closing_told_at is null))
        and tell_again_at <= statement_timestamp()
    order by tell_again_at
    limit {rows}
    for no key update skip locked
), taken as (
    update llmjobs_incident as i
    set tell_again_at = statement_timestamp() + make_interval(secs => %(again_s)s)
    from due as d
    where i.id = d.id
    returning i.*
)
select t.id, t.opening_told_at is null as is_opening, coalesce(p.name, 'provider ' || t.provider_id) as provider,
    m.name as model, t.reason, t.words, t.opened_at, t.closed_at, t.tell_failures
from taken as t
left join llmjobs_provider as p on p.id = t.provider_id
left join llmjobs_model as m on m.id = t.pool_id
order by t.id
