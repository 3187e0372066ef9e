-- Called by: limits, for the Retry-After of a full queue.
-- Parameters: client_id, or null for all clients.
-- Returns: starts a second: what runs, by how long the latest 100 attempts of ten minutes took; null where none ended.
-- Why not their number by their time: that would count the time when nobody asked, too.
-- Why a range of one client: with `=` the planner may walk everybody's attempts backwards until it has found enough.
-- Index: attempt_of_client, or the primary key of llmjobs_attempt, backwards.
select (greatest(count(*) filter (where ended_at is null), 1)
    / avg(greatest(extract(epoch from ended_at - claimed_at), 0.001)))::float8 as starts_per_s
from (
    (
        select claimed_at, ended_at
        from llmjobs_attempt
        where client_id >= %(client_id)s::bigint and client_id <= %(client_id)s::bigint
        order by client_id, id desc
        limit 100
    )
    union all
    (
        select claimed_at, ended_at
        from llmjobs_attempt
        where %(client_id)s::bigint is null
        order by id desc
        limit 100
    )
) as a
where claimed_at > statement_timestamp() - interval '10 minutes'
