-- Called by: operation_duty, now and then.
-- Parameters: age_s: how long ago an operation must have ended.
-- Literal: {rows}, the most items.
-- Returns: how many items were removed. Nobody writes the items of an operation that is over so long. The operation stays: who did what, to how many, and why.
-- Locks: the operation, SKIP LOCKED: one worker at a time. Index: operation_remembered; the items' primary key.
with old as materialized (
    select id
    from llmjobs_operation
    where not is_forgotten and finished_at < statement_timestamp() - make_interval(secs => %(age_s)s)
    order by finished_at
    limit 1
    for no key update skip locked
), gone as (
    delete from llmjobs_operationitem
    where ctid = any (array(
        select ctid from llmjobs_operationitem where operation_id = (select id from old) limit {rows}
    ))
    returning 1
), forgotten as (
    update llmjobs_operation
    set is_forgotten = true
    where id = (select id from old) and (select count(*) from gone) < {rows}
)
select count(*) from gone
