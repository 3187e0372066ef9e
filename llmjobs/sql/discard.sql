-- Called by: steering.discard, for an operator.
-- Parameters: ids (array).
-- Returns: job_id of the dead letters that were taken out of the list. The jobs stay as they are, and nobody is told.
-- Locks: the jobs, in the order of their ids, so that no two who take letters out wait for each other crosswise.
-- Index: primary keys.
with held as materialized (
    select id
    from llmjobs_job
    where id = any (%(ids)s::bigint[]) and state in ('dead', 'failed')
    order by id
    for no key update
)
delete from llmjobs_deadletter where job_id = any (array(select id from held)) returning job_id
