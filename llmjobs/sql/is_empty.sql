-- Called by: the worker, with --until-empty.
-- Parameters: pools, tiers: ids, or null for all.
-- Returns: whether nothing is queued, running or waiting for a retry. Index: job_ready, job_running, job_scheduled.
select not exists (
    select
    from llmjobs_job as j
    where (j.state = 'queued' or j.state = 'running' or j.state = 'scheduled')
        and (%(pools)s::bigint[] is null or j.pool_id = any (%(pools)s::bigint[]))
        and (%(tiers)s::bigint[] is null or j.tier_id = any (%(tiers)s::bigint[]))
) as is_empty
