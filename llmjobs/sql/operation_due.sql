-- Called by: operation_duty, each second and after each batch.
-- Parameters: none.
-- Returns: the operation whose turn it is and 0, or null and in how many seconds the next one's is; no row where none runs.
-- Locks: looks for a row that nobody holds, and lets it go at once: operation_steps.step takes it for good. One that another
-- worker is at is passed by.
-- Index: operation_due, which has the running ones alone.
with due as materialized (
    select id, next_at
    from llmjobs_operation
    where state = 'running' and verb <> 'export'
    order by next_at
    limit 1
    for no key update skip locked
)
select case when next_at <= statement_timestamp() then id end,
    greatest(0, extract(epoch from next_at - statement_timestamp())::float8)
from due
