-- Called by: limits, inside a caller's transaction before a submit, and to say when there will be room.
-- Parameters: client_id; backlog_max.
-- Returns: jobs and tokens of the client that wait, its limits (null: none), the jobs of all that wait (no less than do,
-- and exactly once that comes to the bound).
-- Locks: nothing, so another may take the room meanwhile: the commit decides.
select w.jobs, w.tokens, coalesce(c.max_queued, t.max_queued), coalesce(c.max_queued_tokens, t.max_queued_tokens),
    case when b.jobs < %(backlog_max)s then b.jobs else llmjobs_backlog(true) end
from llmjobs_client as c
join llmjobs_tier as t on t.id = c.tier_id
cross join lateral llmjobs_waiting(c.id) as w
cross join llmjobs_backlog(false) as b (jobs)
where c.id = %(client_id)s
