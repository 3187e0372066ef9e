-- Called by: retention, for the jobs that prune_pick.sql has locked.
-- Parameters: ids.
-- Returns: how many jobs went, with all that belongs to them. What they did cost stays in Spending: no trigger takes it
-- back. Triggers tell the counts, and `submitted` still has them.
-- Locks: the rows. A webhook or a handler that an operator asks for again in this moment keeps its row, without a job.
-- Index: the primary keys; event_of_job, attempt_of_job, delivery_of_end, handlercall_of_end, that of
-- llmjobs_sharedlink.job_id.
with requests as (
    delete from llmjobs_jobrequest where job_id = any (%(ids)s::bigint[])
), results as (
    delete from llmjobs_jobresult where job_id = any (%(ids)s::bigint[])
), events as (
    delete from llmjobs_jobevent where job_id = any (%(ids)s::bigint[])
), attempts as (
    delete from llmjobs_attempt where job_id = any (%(ids)s::bigint[])
), deliveries as (
    delete from llmjobs_webhookdelivery where job_id = any (%(ids)s::bigint[]) and state <> 'pending'
), calls as (
    delete from llmjobs_handlercall where job_id = any (%(ids)s::bigint[]) and state <> 'pending'
), links as (
    delete from llmjobs_sharedlink where job_id = any (%(ids)s::bigint[])
), jobs as (
    delete from llmjobs_job where id = any (%(ids)s::bigint[]) returning id
)
select count(*) from jobs
