-- Called by: stats.queue_stats.
-- Parameters: client_ids (array), or null for all.
-- Returns: p50 and p95 of the wait of the latest 1,000 attempts, in seconds; the age of the oldest queued job, in seconds.
with latest as materialized (
    select extract(epoch from a.claimed_at - greatest(j.created_at, j.available_at)) as wait_s
    from llmjobs_attempt as a
    join llmjobs_job as j on j.id = a.job_id
    where %(client_ids)s::bigint[] is null or j.client_id = any (%(client_ids)s::bigint[])
    order by a.id desc
    limit 1000
)
select
    (select percentile_cont(0.5) within group (order by wait_s) from latest)::float8 as p50,
    (select percentile_cont(0.95) within group (order by wait_s) from latest)::float8 as p95,
    (
        select extract(epoch from statement_timestamp() - min(available_at))
        from llmjobs_job
        where state = 'queued' and (%(client_ids)s::bigint[] is null or client_id = any (%(client_ids)s::bigint[]))
    )::float8 as oldest_queued_s
