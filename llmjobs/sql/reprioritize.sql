-- Called by: steering.reprioritize, for an operator.
-- Parameters: ids (array); priority (number), word (what people call it).
-- Returns: id, client_id, seq (null: no event), pool_id of the jobs changed; those that have it already, those that are over,
-- and those whose client's tier does not allow it, are left alone.
-- A job keeps its lane_order, so that it stands in its new lane by its age. A running one goes on as it is: if it comes
-- back, it comes back there. Its log is its worker's, who numbers it by the epoch; the others begin a new one, for an event.
-- Locks: the jobs, in the order of their ids. A claim that has seen one in its old lane finds, once it has the lock, that
-- it stands there no more.
-- Index: primary keys.
with held as materialized (
    select j.id, j.priority as was
    from llmjobs_job as j
    join llmjobs_client as c on c.id = j.client_id
    join llmjobs_tier as t on t.id = c.tier_id
    where j.id = any (%(ids)s::bigint[])
        and j.state in ('scheduled', 'queued', 'running')
        and j.priority <> %(priority)s::smallint
        and t.max_priority <= %(priority)s::smallint
    order by j.id
    for no key update of j
), moved as materialized (
    update llmjobs_job as j
    set priority = %(priority)s::smallint,
        epoch = j.epoch + case when j.state = 'running' then 0 else 1 end
    from held as h
    where j.id = h.id
    returning j.*, h.was
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, m.pool_id, m.client_id, d.priority, m.size, d.sign * count(*),
        case when d.sign > 0 then min(m.lane_order) end, case when d.sign > 0 then min(m.available_at) end
    from moved as m
    cross join lateral (values (m.was, -1), (m.priority, 1)) as d (priority, sign)
    join llmjobs_model as p on p.id = m.pool_id
    where m.state = 'queued'
    group by p.shard_id, m.pool_id, m.client_id, d.priority, m.size, d.sign
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_strip_nulls(jsonb_build_object(
        'status', state, 'attempt', attempt, 'priority', %(word)s::text,
        'available_at', case when state = 'scheduled' then available_at end))
    from moved
    where state <> 'running'
)
select id, client_id, case when state <> 'running' then epoch::bigint << 20 end as seq, pool_id
from moved
