-- Called by: queue.stage, a duty of every worker.
-- Literal: {rows}, the most at once.
-- Returns: id, client_id, seq, state of the scheduled jobs whose time has come, queued now at their old place.
-- Locks: the jobs, SKIP LOCKED, so that no two workers wait for each other. Index: job_scheduled.
with due as materialized (
    select id
    from llmjobs_job
    where state = 'scheduled' and available_at <= statement_timestamp()
    order by available_at
    limit {rows}
    for no key update skip locked
), moved as materialized (
    update llmjobs_job as j
    set state = 'queued', epoch = j.epoch + 1
    from due as d
    where j.id = d.id
    returning j.*
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, count(*), min(m.lane_order), min(m.available_at)
    from moved as m
    join llmjobs_model as p on p.id = m.pool_id
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_build_object('status', 'queued', 'attempt', attempt)
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, state
from moved
