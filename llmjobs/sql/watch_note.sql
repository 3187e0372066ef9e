-- Called by: watch, last in its transaction.
-- Parameters: found: JSON, what was seen, each with kind, level, provider_id, pool_id, tier_id, client_id, words; looked: the
-- kinds that could be looked at; clear_s: what was not seen for so long is over, half as long again at most; past_s: how
-- old Watch.past_xid is at least.
-- Returns: opened, closed (incidents).
-- Opens what is seen and not open yet, and closes what is over. An incident that is seen again is marked twice in clear_s at
-- most, so that thousands cost little.
-- Why a key of text: what may be null is compared at once, and can be hashed.
-- Locks: the incidents that change. Index: incident_open_once.
with found as materialized (
    select *, concat_ws(
            ',', kind, level, coalesce(provider_id, 0), coalesce(pool_id, 0), coalesce(tier_id, 0), coalesce(client_id, 0)) as key
    from jsonb_to_recordset(%(found)s::jsonb) as f (
        kind text, level text, provider_id bigint, pool_id bigint, tier_id bigint, client_id bigint, words text)
), is_open as materialized (
    select id, kind, seen_at, concat_ws(
            ',', kind, level, coalesce(provider_id, 0), coalesce(pool_id, 0), coalesce(tier_id, 0), coalesce(client_id, 0)) as key
    from llmjobs_incident
    where closed_at is null and kind <> 'breaker'
), seen as (
    update llmjobs_incident as i
    set seen_at = statement_timestamp(), words = f.words
    from is_open as o
    join found as f on f.key = o.key
    where i.id = o.id and o.seen_at <= statement_timestamp() - make_interval(secs => %(clear_s)s / 2)
), closed as (
    update llmjobs_incident as i
    set closed_at = statement_timestamp()
    from is_open as o
    left join found as f on f.key = o.key
    where i.id = o.id and i.closed_at is null and f.key is null and o.kind = any (%(looked)s::text[])
        and o.seen_at <= statement_timestamp() - make_interval(secs => 1.5 * %(clear_s)s)
    returning i.id
), opened as (
    insert into llmjobs_incident (kind, level, provider_id, pool_id, tier_id, client_id, reason, words)
    select f.kind, f.level, f.provider_id, f.pool_id, f.tier_id, f.client_id, '', f.words
    from found as f
    left join is_open as o on o.key = f.key
    where o.key is null
    order by f.kind, f.provider_id, f.pool_id, f.tier_id, f.client_id -- so does a message name them
    on conflict do nothing
    returning id
), past as materialized (
    select next_past_at <= statement_timestamp() - make_interval(secs => %(past_s)s) as moves
    from llmjobs_watch
    where id = 1
), watched as (
    insert into llmjobs_watch as w (id, watched_at, next_past_xid)
    values (1, statement_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
    on conflict (id) do update set
        watched_at = excluded.watched_at,
        past_xid = case when (select moves from past) then w.next_past_xid else w.past_xid end,
        next_past_xid = case when (select moves from past) then excluded.next_past_xid else w.next_past_xid end,
        next_past_at = case when (select moves from past) then statement_timestamp() else w.next_past_at end
)
select (select count(*) from opened)::int as opened, (select count(*) from closed)::int as closed
