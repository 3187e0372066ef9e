-- Called by: queue.requeue, for an operator.
-- Parameters: ids (array).
-- Returns: id, client_id, seq, state, pool_id of the jobs requeued; those in another state, and those whose request
-- was erased, are left alone.
-- A requeued job goes to the end of its lane, with no failure counted and its time to retry renewed; its attempts keep
-- their numbers. A cancel, and a deadline for its start, belong to its life before.
-- Locks: the jobs, in the order of their ids.
with held as materialized (
    select j.id
    from llmjobs_job as j
    where j.id = any (%(ids)s::bigint[])
        and j.state in ('failed', 'dead', 'cancelled', 'expired')
        and exists (select from llmjobs_jobrequest as r where r.job_id = j.id)
    order by j.id
    for no key update of j
), placed as materialized (
    -- Here, because the update's join comes in any order, and the older shall stay before the younger.
    select id, nextval('llmjobs_lane_order') as lane_order
    from held
), moved as materialized (
    update llmjobs_job as j
    set state = 'queued',
        epoch = j.epoch + 1,
        failures = 0,
        lane_order = p.lane_order,
        available_at = statement_timestamp(),
        retry_until = statement_timestamp() + make_interval(secs => j.retry_for_s),
        expires_at = null,
        finished_at = null,
        cancel_requested_at = null
    from placed as p
    where j.id = p.id
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
select id, client_id, epoch::bigint << 20 as seq, state, pool_id
from moved
