-- Called by: monitoring.reading, at a scrape.
-- Parameters: lease_s: a worker whose heartbeat is older is lost.
-- Literal: {rows}, up to which anything is counted.
-- Returns: one row: what there is beside the jobs.
-- Why the limits: a scrape costs the same whatever piled up; who has more than that knows enough.
-- Locks: nothing. Index: worker_living, delivery_due, delivery_failed, handlercall_due, handlercall_dead, incident_open_once,
-- the primary key of dead letters, each read alone and up to a limit.
with living as materialized (
    select slots, is_draining, extract(epoch from statement_timestamp() - heartbeat_at)::float8 as heartbeat_s,
        heartbeat_at < statement_timestamp() - make_interval(secs => %(lease_s)s) as is_lost
    from llmjobs_worker
    where stopped_at is null and heartbeat_at > statement_timestamp() - interval '1 hour'
    limit {rows}
)
select
    (select count(*) from living where not is_lost and not is_draining) as workers_living,
    (select count(*) from living where not is_lost and is_draining) as workers_draining,
    (select count(*) from living where is_lost) as workers_lost,
    (select coalesce(sum(slots), 0) from living where not is_lost) as slots,
    (select max(heartbeat_s) from living where not is_lost) as heartbeat_s,
    (select count(*) from (select from llmjobs_webhookdelivery where state = 'pending' limit {rows}) as d) as deliveries_pending,
    (select count(*) from (select from llmjobs_webhookdelivery where state = 'failed' limit {rows}) as d) as deliveries_failed,
    (
        select greatest(extract(epoch from statement_timestamp() - min(next_at)), 0)
        from llmjobs_webhookdelivery
        where state = 'pending'
    )::float8 as deliveries_overdue_s,
    (select count(*) from (select from llmjobs_handlercall where state = 'pending' limit {rows}) as c) as calls_pending,
    (select count(*) from (select from llmjobs_handlercall where state = 'dead' limit {rows}) as c) as calls_dead,
    (select count(*) from (select from llmjobs_deadletter limit {rows}) as d) as dead_letters,
    exists (select from llmjobs_claimspause where resumed_at is null) as is_paused,
    -- What holds up the cleaning of all tables; null of sessions that this role may not see.
    (
        select max(extract(epoch from statement_timestamp() - xact_start))
        from pg_stat_activity
        where backend_xmin is not null and pid <> pg_backend_pid()
    )::float8 as oldest_snapshot_s,
    (
        select coalesce(jsonb_object_agg(kind, number), '{}')
        from (select kind, count(*) as number from llmjobs_incident where closed_at is null group by kind) as i
    ) as incidents
from (select) as one
