-- Called by: retention, once a round, under its advisory lock.
-- Parameters: age_s: how long ago they ended, and a day at least, whatever jobs are kept: a worker that lives may be late.
-- Literal: {rows}, the most of each, of samples of each pool.
-- Returns: workers, incidents, samples, links (that show a job, and expired then): how many went. A worker that was killed
-- never said that it stopped: its heartbeat tells. One that still holds a job stays until that was taken back.
-- Index: the samples' primary key; job_running; that of llmjobs_sharedlink.expires_at. Workers and incidents are few.
with past as materialized (
    select statement_timestamp() - greatest(make_interval(secs => %(age_s)s), interval '1 d') as at
), workers as (
    delete from llmjobs_worker
    where id = any (array(
        select w.id
        from llmjobs_worker as w
        where coalesce(w.stopped_at, w.heartbeat_at) < (select at from past)
            and not exists (select from llmjobs_job as j where j.state = 'running' and j.worker_id = w.id)
        limit {rows}
    ))
    returning 1
), incidents as (
    delete from llmjobs_incident
    where id = any (array(select id from llmjobs_incident where closed_at < (select at from past) limit {rows}))
    returning 1
), samples as (
    delete from llmjobs_poolsample
    where ctid = any (array(
        select o.row
        from llmjobs_model as m
        cross join lateral (
            select ctid as row
            from llmjobs_poolsample
            where pool_id = m.id and at < (select at from past)
            order by at
            limit {rows}
        ) as o
    ))
    returning 1
), links as (
    delete from llmjobs_sharedlink
    where id = any (array(
        select id from llmjobs_sharedlink where expires_at < (select at from past) order by expires_at limit {rows}
    ))
    returning 1
)
select (select count(*) from workers), (select count(*) from incidents), (select count(*) from samples),
    (select count(*) from links)
