-- Called by: steering.move, for an operator.
-- Parameters: ids (array); pool: where to.
-- Returns: id, client_id, seq of the jobs moved. Left alone are those that do not wait, those that were asked of that model
-- and are there, and those that its context is too small for.
-- An operator's move is for good: the model is what the job asks for from now on, and a requeue finds it there. (A fallback's
-- is not: `home` remembers where it belongs.) Its estimates go by the new prices; it keeps its lane_order, so that it stands
-- by its age, and begins an epoch, for an event. What is sent to the provider names the model that it stands at: no body does.
-- Locks: the jobs, in the order of their ids. A claim that has seen one here finds, once it has the lock, that it is not.
-- Index: primary keys.
with target as materialized (
    select id, name, context_window, coalesce(input_usd_per_mtok, 0) as input_usd, coalesce(output_usd_per_mtok, 0) as output_usd,
        coalesce(input_usd_per_mtok, output_usd_per_mtok) is not null as is_priced,
        -- As Model.output_weight.
        case
            when input_usd_per_mtok > 0 and output_usd_per_mtok is not null
            then (output_usd_per_mtok / input_usd_per_mtok)::float8
            else 1
        end as output_weight
    from llmjobs_model
    where id = %(pool)s
), held as materialized (
    select j.id, j.pool_id as was
    from llmjobs_job as j
    cross join target as b
    where j.id = any (%(ids)s::bigint[])
        and j.state in ('scheduled', 'queued')
        and (j.pool_id <> b.id or j.home_id is not null)
        and j.est_input_tokens::bigint + j.est_output_tokens <= coalesce(b.context_window, 9223372036854775807)
    order by j.id
    for no key update of j
), moved as materialized (
    update llmjobs_job as j
    set pool_id = b.id,
        home_id = null,
        epoch = j.epoch + 1,
        est_cost = j.est_input_tokens + j.est_output_tokens * b.output_weight,
        est_usd = case
            when b.is_priced
            -- No more than the column holds.
            then least((j.est_input_tokens * b.input_usd + j.est_output_tokens * b.output_usd) / 1000000, 999999.99999999)
        end
    from held as h
    cross join target as b
    where j.id = h.id
    returning j.*, h.was, b.name
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, p.id, m.client_id, m.priority, m.size, d.sign * count(*),
        case when d.sign > 0 then min(m.lane_order) end, case when d.sign > 0 then min(m.available_at) end
    from moved as m
    cross join lateral (values (m.was, -1), (m.pool_id, 1)) as d (pool_id, sign)
    join llmjobs_model as p on p.id = d.pool_id
    where m.state = 'queued' and m.was <> m.pool_id
    group by p.shard_id, p.id, m.client_id, m.priority, m.size, d.sign
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_strip_nulls(jsonb_build_object(
        'status', state, 'attempt', attempt, 'model', name,
        'available_at', case when state = 'scheduled' then available_at end))
    from moved
)
select id, client_id, epoch::bigint << 20 as seq
from moved
