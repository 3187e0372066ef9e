-- Called by: api/walking.py, for operators.
-- Parameters: before_id: only smaller ids (null: all).
-- Literal: {rows}, the most.
-- Returns: id and created_at of the newest jobs, the newest first. Locks: nothing. Index: the primary key, a short range.
select id, created_at
from llmjobs_job
where id < coalesce(%(before_id)s::bigint, 9223372036854775807)
order by id desc
limit {rows}
