-- Called by: operation_steps.step, after operation_pick.sql.
-- Parameters: ids (array).
-- Returns: id, state, priority, pool_id (of the model that it was asked of), epoch, is_cancelling, is_away (a fallback has
-- it), of the jobs that are there and that nobody else holds.
-- Locks: the jobs, SKIP LOCKED, in the order of their ids: a batch waits for nobody, and what its verb is called for is as
-- it was when it was chosen. Claims pass a locked job by.
-- Index: the jobs' primary key.
select id, state, priority, coalesce(home_id, pool_id) as pool_id, epoch, cancel_requested_at is not null as is_cancelling,
    home_id is not null as is_away
from llmjobs_job
where id = any (%(ids)s::bigint[])
order by id
for no key update skip locked
