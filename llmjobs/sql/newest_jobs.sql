-- Called by: api/walking.py.
-- Parameters: clients (array); before_id: only smaller ids (null: all).
-- Literal: {rows}, the most.
-- Returns: id and created_at of the newest jobs of these clients, the newest first.
-- Locks: nothing. Index: job_of_client, a short range a client.
-- Why: for several clients at once no index has the order, and the planner would sort all their jobs, or walk through
-- everybody's. So would it for one, where its statistics are older than the client: with `=` the primary key has the order
-- too, and all others' jobs. As a range, ordered by the client first, the index has it alone.
select j.id, j.created_at
from unnest(%(clients)s::bigint[]) as c (id)
cross join lateral (
    select id, created_at
    from llmjobs_job
    where client_id >= c.id and client_id <= c.id and id < coalesce(%(before_id)s::bigint, 9223372036854775807)
    order by client_id, id desc
    limit {rows}
) as j
order by j.id desc
limit {rows}
