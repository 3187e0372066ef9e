-- Called by: queue.claim, third, under the turnstile.
-- Parameters: shard; is_sweep: look at the whole inbox, not only behind the bound.
-- Makes the flows, lanes and tier turns that rows of the inbox name and that do not exist yet, all of them asleep.
-- Why here: a get-or-create by each submitter would wait, on the unique index, for another's open transaction. A row
-- whose lane is still missing when the fold looks (it committed in between) stays in the inbox for the next one.
-- Index: inbox_of_shard from the bound on; flow_of_pool_and_client; lane_of_flow.
with fresh as materialized (
    select distinct i.pool_id, i.client_id, i.priority, i.size
    from llmjobs_inbox as i
    where i.shard_id = %(shard)s
        and i.id >= (
            select case when %(is_sweep)s then 0 else s.bound_id end
            from llmjobs_shardturn as s
            where s.shard_id = %(shard)s
            order by s.turn desc
            limit 1
        )
), tier_turns as (
    insert into llmjobs_tierturn (pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, floors)
    select p.pool_id, t.id, 0, 0, 0, 0, 0, 0, array_fill('infinity'::double precision, array[10])
    from (select distinct pool_id from fresh) as p
    cross join llmjobs_tier as t
    where not exists (select from llmjobs_tierturn as x where x.pool_id = p.pool_id and x.tier_id = t.id)
), missing as materialized (
    select n.*
    from fresh as n
    where n.priority is not null
        and not exists (
            select
            from llmjobs_flow as f
            join llmjobs_lane as l on l.flow_id = f.id and l.priority = n.priority and l.size = n.size
            where f.pool_id = n.pool_id and f.client_id = n.client_id
        )
), new_flows as (
    insert into llmjobs_flow (pool_id, client_id)
    select distinct m.pool_id, m.client_id
    from missing as m
    where not exists (select from llmjobs_flow as f where f.pool_id = m.pool_id and f.client_id = m.client_id)
    returning id, pool_id, client_id
), new_flow_turns as (
    insert into llmjobs_flowturn (flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open)
    select f.id, 0, f.pool_id, f.client_id, c.tier_id, 0, 0, 0, 0,
        not c.is_paused and coalesce(c.max_running, t.max_running, 1) > 0
    from new_flows as f
    join llmjobs_client as c on c.id = f.client_id
    join llmjobs_tier as t on t.id = c.tier_id
    returning flow_id, pool_id, client_id, tier_id, vt
), flows as (
    select * from new_flow_turns
    union all
    select f.id, f.pool_id, f.client_id, t.tier_id, t.vt
    from (select distinct pool_id, client_id from missing) as m
    join llmjobs_flow as f on f.pool_id = m.pool_id and f.client_id = m.client_id
    cross join lateral (select * from llmjobs_flowturn where flow_id = f.id order by turn desc limit 1) as t
), new_lanes as (
    insert into llmjobs_lane (flow_id, priority, size)
    select f.flow_id, m.priority, m.size
    from missing as m
    join flows as f on f.pool_id = m.pool_id and f.client_id = m.client_id
    returning id, flow_id, priority, size
)
insert into llmjobs_laneturn (lane_id, turn, flow_id, pool_id, tier_id, level, vt, head_order, queued, has_heads, is_ready)
select l.id, 0, l.flow_id, f.pool_id, f.tier_id,
    case l.priority when 0 then 0 when 1 then 2 when 5 then 4 when 8 then 6 else 8 end + l.size,
    f.vt, 9223372036854775807, 0, false, false
from new_lanes as l
join flows as f on f.flow_id = l.flow_id
