-- Called by: operation_steps.step, under pin_writes.sql: nothing is known of items that came a moment ago, and the planner
-- would read all of them each time.
-- Parameters: operation; after_id: the job that this round has come to; rows: the most.
-- Returns: job_id, left_epoch, target of the items that are to be done next, in the order of the ids.
-- Index: the items' primary key, a range.
select job_id, epoch as left_epoch, target
from llmjobs_operationitem
where operation_id = %(operation)s and job_id > %(after_id)s and did is null
order by job_id
limit %(rows)s
