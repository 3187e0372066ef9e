-- Called by: steering.requeue, for an operator.
-- Parameters: ids (array); pool: another model for them, from now on, or null; keeps_time: those whose time has not come are
-- scheduled for it again.
-- Returns: id, client_id, seq, state, pool_id of the jobs requeued; those in another state, those whose request
-- was erased, and those that the other model's context is too small for, are left alone.
-- A requeued job goes to the end of its lane, with no failure counted and its time to retry renewed; its attempts keep
-- their numbers. A cancel, and a deadline for its start, belong to its life before; so does a fallback
-- that took it: it is back at the model that was asked for, and its estimates go by that one's prices.
-- Locks: the jobs, in the order of their ids, each with its request.
with held as materialized (
    -- The request too: an erase changes nothing of the job's row, so that who waited for it would not look again.
    select j.id
    from llmjobs_job as j
    join llmjobs_jobrequest as r on r.job_id = j.id
    where j.id = any (%(ids)s::bigint[])
        and j.state in ('failed', 'dead', 'cancelled', 'expired')
        and r.body <> ''
        and (
            %(pool)s::bigint is null
            or j.est_input_tokens::bigint + j.est_output_tokens
                <= (select coalesce(context_window, 9223372036854775807) from llmjobs_model where id = %(pool)s::bigint)
        )
    order by j.id
    for no key update of j, r
), placed as materialized (
    -- Here, because the update's join comes in any order, and the older shall stay before the younger.
    select id, nextval('llmjobs_lane_order') as lane_order
    from held
), moved as materialized (
    update llmjobs_job as j
    set state = case when %(keeps_time)s and j.available_at > statement_timestamp() then 'scheduled' else 'queued' end,
        pool_id = h.id,
        home_id = null,
        est_cost = case
            when h.id = j.pool_id then j.est_cost
            else j.est_input_tokens
                + j.est_output_tokens * coalesce((h.output_usd_per_mtok / nullif(h.input_usd_per_mtok, 0))::float8, 1)
        end,
        est_usd = case
            when h.id = j.pool_id then j.est_usd
            when coalesce(h.input_usd_per_mtok, h.output_usd_per_mtok) is not null
            then least(
                (j.est_input_tokens * coalesce(h.input_usd_per_mtok, 0) + j.est_output_tokens * coalesce(h.output_usd_per_mtok, 0)) / 1000000,
                999999.99999999)
        end,
        epoch = j.epoch + 1,
        failures = 0,
        lane_order = p.lane_order,
        available_at = greatest(case when %(keeps_time)s then j.available_at end, statement_timestamp()),
        retry_until = greatest(case when %(keeps_time)s then j.available_at end, statement_timestamp())
            + make_interval(secs => j.retry_for_s),
        expires_at = null,
        finished_at = null,
        cancel_requested_at = null
    from placed as p
    cross join llmjobs_model as h
    where j.id = p.id and h.id = coalesce(%(pool)s::bigint, j.home_id, j.pool_id)
    returning j.*
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, count(*), min(m.lane_order), min(m.available_at)
    from moved as m
    join llmjobs_model as p on p.id = m.pool_id
    where m.state = 'queued'
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_strip_nulls(jsonb_build_object(
        'status', state, 'attempt', attempt, 'available_at', case when state = 'scheduled' then available_at end))
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, state, pool_id
from moved
