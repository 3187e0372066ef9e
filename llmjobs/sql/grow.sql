-- Called by: queue.claim, third, under the turnstile, once the fold of a claim before met rows that need it; and by sweeps.
-- Parameters: shard; is_sweep, is_full: as of `fold`, which takes the rows from the same one on.
-- Makes the flows, lanes and tier turns that rows of the inbox name and that do not exist yet, all of them asleep.
-- Why here: a get-or-create by each submitter would wait, on the unique index, for another's open transaction. A row
-- whose lane is still missing when the fold looks (it committed in between) stays in the inbox for the next one.
-- Literal: {rows}, as of `fold`.
-- Index: inbox_of_shard from the bound on; flow_of_pool_and_client; lane_of_flow.
with fresh as materialized (
    select pool_id, client_id, priority, size, min(id) as first_id
    from (
        select i.id, i.pool_id, i.client_id, i.priority, i.size
        from llmjobs_inbox as i
        where i.shard_id = %(shard)s
            and i.id >= (
                select case when %(is_full)s then 0 when %(is_sweep)s then s.sweep_from else s.bound_id end
                from llmjobs_shardturn as s
                where s.shard_id = %(shard)s
                order by s.turn desc
                limit 1
            )
        order by i.id
        limit {rows}
    ) as i
    group by pool_id, client_id, priority, size
), tier_turns as (
    insert into llmjobs_tierturn (pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, floors, floor_flows)
    select p.pool_id, t.id, 0, 0, 0, 0, 0, 0, array_fill('infinity'::double precision, array[10]), array_fill(0::bigint, array[10])
    from (select distinct pool_id from fresh) as p
    cross join llmjobs_tier as t
    where (
        select true from llmjobs_tierturn as x where x.pool_id = p.pool_id and x.tier_id = t.id order by x.turn desc limit 1
    ) is null
), missing as materialized (
    select n.*, f.id as flow_id
    from fresh as n
    -- Who was deleted past Django has news, but no flow any more; the fold takes the rows out.
    cross join lateral (select from llmjobs_client where id = n.client_id limit 1) as c
    cross join lateral (select from llmjobs_model where id = n.pool_id limit 1) as p
    left join lateral (select id from llmjobs_flow where pool_id = n.pool_id and client_id = n.client_id limit 1) as f on true
    left join lateral (
        select id from llmjobs_lane where flow_id = f.id and priority = n.priority and size = n.size limit 1
    ) as l on true
    where n.priority is not null and l.id is null
), new_flows as (
    insert into llmjobs_flow (pool_id, client_id)
    select pool_id, client_id
    from missing
    where flow_id is null
    group by pool_id, client_id
    order by min(first_id)
    returning id, pool_id, client_id
), new_flow_turns as (
    insert into llmjobs_flowturn (
        flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open, weight, max_running)
    select f.id, 0, f.pool_id, f.client_id, c.tier_id, 0, 0, 0, 0,
        not c.is_paused and coalesce(c.max_running, t.max_running, 1) > 0, c.weight, coalesce(c.max_running, t.max_running)
    from new_flows as f
    cross join lateral (select tier_id, is_paused, weight, max_running from llmjobs_client where id = f.client_id limit 1) as c
    join llmjobs_tier as t on t.id = c.tier_id
    returning flow_id, pool_id, client_id, tier_id, vt
), flows as (
    select * from new_flow_turns
    union all
    select t.flow_id, t.pool_id, t.client_id, t.tier_id, t.vt
    from (select distinct flow_id from missing where flow_id is not null) as m
    cross join lateral (select * from llmjobs_flowturn where flow_id = m.flow_id order by turn desc limit 1) as t
), new_lanes as (
    insert into llmjobs_lane (flow_id, priority, size)
    select f.flow_id, m.priority, m.size
    from missing as m
    join flows as f on f.pool_id = m.pool_id and f.client_id = m.client_id
    order by m.first_id
    returning id, flow_id, priority, size
)
insert into llmjobs_laneturn (
    lane_id, turn, flow_id, pool_id, tier_id, priority, size, level, vt, head_order, queued, has_heads, is_ready)
select l.id, 0, l.flow_id, f.pool_id, f.tier_id, l.priority, l.size,
    case l.priority when 0 then 0 when 1 then 2 when 5 then 4 when 8 then 6 else 8 end + l.size,
    f.vt, 9223372036854775807, 0, false, false
from new_lanes as l
join flows as f on f.flow_id = l.flow_id
