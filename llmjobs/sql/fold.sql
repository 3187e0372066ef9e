-- Called by: queue.claim, fourth, under the turnstile.
-- Parameters: shard; is_sweep: take rows behind the bound too; lag_tokens: how much a flow that was closed may lag.
-- Literal: {rows}, the most rows of the inbox taken at once.
-- Returns: taken (rows), more (there may be further rows).
-- Turns what submit, settle, cancel and the others appended into new turns: counts, heads, corrections of virtual
-- time; wakes lanes, opens and closes flows. A flow or tier that wakes from idleness is lifted to the virtual time of
-- its siblings: no credit is saved while idle, no history is forgiven.
-- Why a bound: deleted rows stay in the index until no snapshot needs them; behind the bound nobody walks them. Rows
-- whose transaction took its id early and committed late are taken by the sweep.
-- Why by ctid: exact, under the turnstile, whatever the statistics say. A join on the key became a scan.
with shard as materialized (
    select ctid as row, *
    from llmjobs_shardturn
    where shard_id = %(shard)s
    order by turn desc
    limit 1
), found as materialized (
    select i.ctid as row, i.*, f.id as flow_id, l.id as lane_id
    from (
        select ctid, *
        from llmjobs_inbox
        where shard_id = %(shard)s
            and id >= (select case when %(is_sweep)s then 0 else bound_id end from shard)
        order by id
        limit {rows}
    ) as i
    join llmjobs_flow as f on f.pool_id = i.pool_id and f.client_id = i.client_id
    join llmjobs_client as c on c.id = i.client_id
    left join llmjobs_lane as l on l.flow_id = f.id and l.priority = i.priority and l.size = i.size
    where (i.priority is null or l.id is not null)
        -- A tier that was made since `grow` looked: its rows wait for the next one, or they would be lost.
        and exists (select from llmjobs_tierturn as t where t.pool_id = i.pool_id and t.tier_id = c.tier_id)
), gone as (
    delete from llmjobs_inbox where ctid = any (array(select row from found))
), lane_change as materialized (
    select lane_id, sum(queued) as queued, min(head_order) as head_order
    from found
    where lane_id is not null
    group by lane_id
), flow_change as materialized (
    select flow_id, sum(running) as running, sum(flow_vt) as vt
    from found
    group by flow_id
), tier_change as materialized (
    select pool_id, tier_id, sum(running) as running, sum(tier_vt) as vt
    from found
    where tier_id is not null
    group by pool_id, tier_id
), tiers as materialized (
    select t.*, coalesce(x.running, 0) as more_running, coalesce(x.vt, 0) as more_vt, x.tier_id is not null as is_changed
    from (select distinct pool_id from found) as p
    cross join llmjobs_tier as k
    cross join lateral (
        select ctid as row, *
        from llmjobs_tierturn
        where pool_id = p.pool_id and tier_id = k.id
        order by turn desc
        limit 1
    ) as t
    left join tier_change as x on x.pool_id = t.pool_id and x.tier_id = t.tier_id
), ready as materialized (
    -- The least virtual time of the ready lanes, null where a tier has none.
    select t.pool_id, t.tier_id, min(l.vt) as vt
    from tiers as t
    cross join generate_series(0, 9) as k (level)
    left join lateral (
        select vt
        from llmjobs_laneturn
        where pool_id = t.pool_id and tier_id = t.tier_id and level = k.level and vt >= t.floors[k.level + 1] and is_ready
        order by vt
        limit 1
    ) as l on t.floors[k.level + 1] < 'infinity'
    group by t.pool_id, t.tier_id
), flows as materialized (
    select f.*, x.running as more_running, x.vt as more_vt, c.tier_id as new_tier_id, c.weight,
        not c.is_paused and f.running + x.running < coalesce(c.max_running, k.max_running, 2147483647) as new_open
    from flow_change as x
    cross join lateral (
        select ctid as row, *
        from llmjobs_flowturn
        where flow_id = x.flow_id
        order by turn desc
        limit 1
    ) as f
    join llmjobs_client as c on c.id = f.client_id
    join llmjobs_tier as k on k.id = c.tier_id
), lanes as materialized (
    select l.*,
        l.queued + coalesce(x.queued, 0) as new_queued,
        least(l.head_order, x.head_order) as new_head_order,
        (l.has_heads or x.head_order is not null) and l.queued + coalesce(x.queued, 0) > 0 as new_has_heads
    from flow_change as f
    join llmjobs_lane as i on i.flow_id = f.flow_id
    cross join lateral (
        select ctid as row, *
        from llmjobs_laneturn
        where lane_id = i.id
        order by turn desc
        limit 1
    ) as l
    left join lane_change as x on x.lane_id = l.lane_id
), waiting as materialized (
    select flow_id, bool_or(has_heads) as was_waiting, bool_or(new_has_heads) as is_waiting
    from lanes
    group by flow_id
), flows_after as materialized (
    select f.*, f.vt + f.more_vt + lift.vt as new_vt, lift.vt as lift_vt, w.is_waiting
    from flows as f
    join waiting as w on w.flow_id = f.flow_id
    join tiers as o on o.pool_id = f.pool_id and o.tier_id = f.tier_id
    join ready as ro on ro.pool_id = f.pool_id and ro.tier_id = f.tier_id
    join tiers as n on n.pool_id = f.pool_id and n.tier_id = f.new_tier_id
    join ready as rn on rn.pool_id = f.pool_id and rn.tier_id = f.new_tier_id
    cross join lateral (select
        coalesce(ro.vt, o.flows_vt) as old_v,
        coalesce(rn.vt, n.flows_vt) as new_v,
        f.vt + f.more_vt as own_vt
    ) as v
    cross join lateral (select
        case
            -- A client that changes tier keeps its distance from the virtual time of its tier, not its own time.
            when f.new_tier_id <> f.tier_id then v.new_v - v.old_v
            when w.is_waiting and not w.was_waiting then greatest(v.new_v - v.own_vt, 0)
            when w.is_waiting and f.new_open and not f.is_open
                then greatest(v.new_v - %(lag_tokens)s / f.weight - v.own_vt, 0)
            else 0
        end as vt
    ) as lift
), lanes_after as materialized (
    select l.*, f.new_tier_id, f.new_vt, l.new_has_heads and f.new_open as new_ready
    from lanes as l
    join flows_after as f on f.flow_id = l.flow_id
    where l.new_queued <> l.queued
        or l.new_head_order <> l.head_order
        or l.new_has_heads <> l.has_heads
        or l.is_ready <> (l.new_has_heads and f.new_open)
        or l.tier_id <> f.new_tier_id
        or (l.is_ready and l.vt <> f.new_vt)
), lanes_gone as (
    delete from llmjobs_laneturn where ctid = any (array(select row from lanes_after))
), lanes_new as (
    insert into llmjobs_laneturn (lane_id, turn, flow_id, pool_id, tier_id, level, vt, head_order, queued, has_heads, is_ready)
    select lane_id, turn + 1, flow_id, pool_id, new_tier_id, level, new_vt, new_head_order, new_queued, new_has_heads, new_ready
    from lanes_after
), flows_gone as (
    delete from llmjobs_flowturn where ctid = any (array(select row from flows_after))
), flows_new as (
    insert into llmjobs_flowturn (flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open)
    select flow_id, turn + 1, pool_id, client_id, new_tier_id, new_vt, lifted + lift_vt, running + more_running, mean_cost, new_open
    from flows_after
), woken as materialized (
    select pool_id, new_tier_id as tier_id, level, min(new_vt) as vt
    from lanes_after
    where new_ready
    group by pool_id, new_tier_id, level
), tiers_after as materialized (
    select t.*,
        case
            when r.vt is null and exists (select from woken as w where w.pool_id = t.pool_id and w.tier_id = t.tier_id)
            then greatest(
                coalesce(
                    (
                        select min(o.vt + o.more_vt)
                        from tiers as o
                        join ready as b on b.pool_id = o.pool_id and b.tier_id = o.tier_id
                        where o.pool_id = t.pool_id and o.tier_id <> t.tier_id and b.vt is not null
                    ),
                    (select max(o.served_vt) from tiers as o where o.pool_id = t.pool_id)
                ) - t.vt - t.more_vt, 0)
            else 0
        end as lift_vt
    from tiers as t
    join ready as r on r.pool_id = t.pool_id and r.tier_id = t.tier_id
    where t.is_changed or exists (select from woken as w where w.pool_id = t.pool_id and w.tier_id = t.tier_id)
), tiers_gone as (
    delete from llmjobs_tierturn where ctid = any (array(select row from tiers_after))
), tiers_new as (
    insert into llmjobs_tierturn (pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, floors)
    select t.pool_id, t.tier_id, t.turn + 1, t.vt + t.more_vt + t.lift_vt, t.lifted + t.lift_vt, t.served_vt, t.flows_vt,
        t.running + t.more_running,
        array(
            select least(t.floors[k.level + 1],
                (select w.vt from woken as w where w.pool_id = t.pool_id and w.tier_id = t.tier_id and w.level = k.level))
            from generate_series(0, 9) as k (level)
            order by k.level
        )
    from tiers_after as t
), shard_gone as (
    delete from llmjobs_shardturn where ctid = any (array(select row from shard)) and exists (select from found)
), shard_new as (
    insert into llmjobs_shardturn (shard_id, turn, folded_to, bound_id, next_bound_id, next_bound_at)
    select s.shard_id, s.turn + 1, m.folded_to,
        case when is_due then s.next_bound_id else s.bound_id end,
        case when is_due then m.folded_to else s.next_bound_id end,
        case when is_due then statement_timestamp() else s.next_bound_at end
    from shard as s
    cross join lateral (select greatest(s.folded_to, (select max(id) from found)) as folded_to) as m
    cross join lateral (select statement_timestamp() - s.next_bound_at > make_interval(secs => 2) as is_due) as d
    where exists (select from found)
)
select count(*)::int as taken, count(*) >= {rows} as more
from found
