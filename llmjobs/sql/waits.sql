-- Called by: stats.queue_stats, for all clients.
-- Returns: p50 and p95 of the waits of the latest 1,000 attempts, in seconds; for how long the oldest queued job has
-- waited, in seconds.
-- Index: the primary key of llmjobs_attempt, backwards. job_queued_since, from where the last count found the oldest, or
-- from where one became queued since then: what left before is not walked.
with latest as materialized (
    select waited_s
    from llmjobs_attempt
    order by id desc
    limit 1000
), turn as materialized (
    select bound_id, oldest_at
    from llmjobs_jobcountturn
    order by turn desc
    limit 1
), bound as materialized (
    select case
        when exists (select from turn) then least(
            (select oldest_at from turn),
            (
                select min(oldest_at)
                from (
                    select oldest_at
                    from llmjobs_jobcountchange
                    where id >= (select bound_id from turn)
                    order by id
                ) as c
            ))
        else '-infinity' end as since
)
select
    (select percentile_cont(0.5) within group (order by waited_s) from latest) as p50,
    (select percentile_cont(0.95) within group (order by waited_s) from latest) as p95,
    extract(epoch from statement_timestamp() - (
        select min(available_at)
        from llmjobs_job
        where state = 'queued' and epoch >= 0 and available_at >= (select since from bound)
    ))::float8 as oldest_queued_s
