-- Called by: limits, for the Retry-After of a full queue.
-- Parameters: client_id, or null for all clients.
-- Returns: starts a second of the latest 1,000 attempts, of the last ten minutes; null without any.
-- Why a range of one client: with `=` the planner may walk everybody's attempts backwards until it has found enough.
-- Index: attempt_of_client, or the primary key of llmjobs_attempt, backwards.
select count(*) / greatest(extract(epoch from statement_timestamp() - min(claimed_at)), 1)::float8
from (
    (
        select claimed_at
        from llmjobs_attempt
        where client_id >= %(client_id)s::bigint and client_id <= %(client_id)s::bigint
        order by client_id, id desc
        limit 1000
    )
    union all
    (
        select claimed_at
        from llmjobs_attempt
        where %(client_id)s::bigint is null
        order by id desc
        limit 1000
    )
) as a
where claimed_at > statement_timestamp() - interval '10 minutes'
