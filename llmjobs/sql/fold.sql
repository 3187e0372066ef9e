-- Called by: queue.claim, fourth, under the turnstile.
-- Parameters: shard; is_sweep: take rows behind the bound too, and look at the lanes that are due to age; is_full: sweep
-- from the very first row; lag_tokens: how much a flow that was closed may lag.
-- Literal: {rows}, the most rows of the inbox taken at once.
-- Parameter: is_grown: `grow` came before, in the same transaction.
-- Returns: taken (rows of the inbox), more (there may be further ones, or further lanes that are due), is_missing (it met
-- rows whose flow, lane or tier turn does not exist yet: `grow` makes them, and the claim after this one takes nothing).
-- Why no nested loops: the inbox is nearly empty whenever statistics are taken, so that the planner expects a few rows and
-- would compare each of thousands with each. What is looked up by key stands in a subquery with a limit, which leaves
-- the planner no choice. The claim after it may have them again.
-- Turns what submit, settle, cancel and the others appended into new turns: counts, heads, corrections of virtual
-- time; wakes lanes, opens and closes flows. A flow or tier that wakes from idleness is lifted to the virtual time of
-- its siblings: no credit is saved while idle, no history is forgiven. A lane whose head waits long rises by a priority
-- each aging_s of its tier. A flow learns from its completed jobs what the next will cost.
-- Why a bound: deleted rows stay in the index until no snapshot needs them; behind the bound nobody walks them. Rows
-- whose transaction took its id early and committed late are taken by the sweep. That has a bound of its own: once all
-- transactions that were open when `bound_id` was noted have ended, and their rows are taken, none is left behind it.
-- (A process that stood still between taking an id and writing its row is found by a full sweep.) The lanes due to age
-- have a bound too: each is written with a time to come, under the turnstile, so none at or before `aged_to` is left.
-- Why by ctid: exact, under the turnstile, whatever the statistics say. A join on the key became a scan.
with shard as materialized (
    select ctid as row, *
    from llmjobs_shardturn
    where shard_id = %(shard)s
    order by turn desc
    limit 1
), news as materialized (
    select ctid as row, *
    from llmjobs_inbox
    where shard_id = %(shard)s
        and id >= (select case when %(is_full)s then 0 when %(is_sweep)s then sweep_from else bound_id end from shard)
    order by id
    limit {rows}
), found as materialized (
    select i.*, f.id as flow_id, l.id as lane_id
    from news as i
    cross join lateral (select id from llmjobs_flow where pool_id = i.pool_id and client_id = i.client_id limit 1) as f
    cross join lateral (select tier_id from llmjobs_client where id = i.client_id limit 1) as c
    left join lateral (
        select id from llmjobs_lane where flow_id = f.id and priority = i.priority and size = i.size limit 1
    ) as l on true
    where (i.priority is null or l.id is not null)
        -- A tier that was made since `grow` looked: its rows wait for the next one, or they would be lost.
        and (
            select true
            from llmjobs_tierturn as t
            where t.pool_id = i.pool_id and t.tier_id = c.tier_id
            order by t.turn desc -- the newest first: behind it lie those that no snapshot let go
            limit 1
        )
), is_missing as materialized (
    select (select count(*) from news) > (select count(*) from found) as yes
), orphans as materialized (
    -- Of clients and pools that were deleted past Django: nobody's news.
    select i.row
    from news as i
    where (select yes from is_missing)
        and (
            not exists (select from llmjobs_client as c where c.id = i.client_id)
            or not exists (select from llmjobs_model as m where m.id = i.pool_id)
        )
), gone as (
    delete from llmjobs_inbox where ctid = any (array(select row from found union all select row from orphans))
), due as materialized (
    select l.flow_id, l.pool_id, l.ages_at
    from llmjobs_laneturn as l
    join llmjobs_model as m on m.id = l.pool_id
    where %(is_sweep)s and l.is_ready and l.ages_at is not null and m.shard_id = %(shard)s
        and l.ages_at > (select aged_to from shard) and l.ages_at <= statement_timestamp()
    order by l.ages_at
    limit {rows}
), lane_change as materialized (
    select lane_id, sum(queued) as queued, min(head_order) as head_order, min(head_at) as head_at
    from found
    where lane_id is not null
    group by lane_id
), flow_change as materialized (
    select flow_id, sum(running) as running, sum(flow_vt) as vt, sum(learned) as learned,
        sum(learned_estimate) as learned_estimate, sum(learned_cost) as learned_cost, sum(learned_output) as learned_output
    from (
        select flow_id, running, flow_vt, learned, learned_estimate, learned_cost, learned_output from found
        union all
        select distinct flow_id, 0, 0, 0, 0, 0, 0 from due
    ) as c
    group by flow_id
), tier_change as materialized (
    select pool_id, tier_id, sum(running) as running, sum(tier_vt) as vt
    from found
    where tier_id is not null
    group by pool_id, tier_id
), tiers as materialized (
    select t.*, coalesce(x.running, 0) as more_running, coalesce(x.vt, 0) as more_vt, x.tier_id is not null as is_changed
    from (
        select pool_id from found union select pool_id from due
    ) as p
    cross join llmjobs_tier as k
    cross join lateral (
        select ctid as row, *
        from llmjobs_tierturn
        where pool_id = p.pool_id and tier_id = k.id
        order by turn desc
        limit 1
    ) as t
    left join tier_change as x on x.pool_id = t.pool_id and x.tier_id = t.tier_id
), flows as materialized (
    select f.*, x.running as more_running, x.vt as more_vt, c.tier_id as new_tier_id, c.weight as new_weight,
        coalesce(c.max_running, k.max_running) as new_max_running, k.aging_s,
        x.learned as more_learned, x.learned_estimate, x.learned_cost, x.learned_output,
        not c.is_paused and f.running + x.running < coalesce(c.max_running, k.max_running, 2147483647) as new_open
    from flow_change as x
    cross join lateral (
        select ctid as row, *
        from llmjobs_flowturn
        where flow_id = x.flow_id
        order by turn desc
        limit 1
    ) as f
    cross join lateral (select * from llmjobs_client where id = f.client_id limit 1) as c
    join llmjobs_tier as k on k.id = c.tier_id
), lanes as materialized (
    select l.*,
        l.queued + coalesce(x.queued, 0) as new_queued,
        case when x.head_order < l.head_order or not l.has_heads then coalesce(x.head_at, l.head_at) else l.head_at end as new_head_at,
        least(l.head_order, x.head_order) as new_head_order,
        (l.has_heads or x.head_order is not null) and l.queued + coalesce(x.queued, 0) > 0 as new_has_heads
    from flow_change as f
    cross join lateral (select * from llmjobs_lane where flow_id = f.flow_id limit 10) as i
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
), movers as materialized (
    -- Flows whose virtual time is set anew. No tier wakes without one.
    select f.flow_id
    from flows as f
    join waiting as w on w.flow_id = f.flow_id
    where f.new_tier_id <> f.tier_id or (w.is_waiting and (not w.was_waiting or (f.new_open and not f.is_open)))
), ready as materialized (
    -- The least virtual time of the ready lanes, null where a tier has none. Asked for only where a lift may follow.
    select t.pool_id, t.tier_id, min(l.vt) as vt
    from tiers as t
    cross join generate_series(0, 9) as k (level)
    left join lateral (
        select vt
        from llmjobs_laneturn
        where pool_id = t.pool_id and tier_id = t.tier_id and level = k.level and is_ready
            and (vt, flow_id) >= (t.floors[k.level + 1], coalesce(t.floor_flows[k.level + 1], 0))
        order by vt, flow_id
        limit 1
    ) as l on t.floors[k.level + 1] < 'infinity'
    where exists (select from movers)
    group by t.pool_id, t.tier_id
), flows_after as materialized (
    select f.*, f.vt + f.more_vt + lift.vt as new_vt, lift.vt as lift_vt, w.is_waiting
    from flows as f
    join waiting as w on w.flow_id = f.flow_id
    left join tiers as o on o.pool_id = f.pool_id and o.tier_id = f.tier_id -- it may have been deleted since
    left join ready as ro on ro.pool_id = f.pool_id and ro.tier_id = f.tier_id
    join tiers as n on n.pool_id = f.pool_id and n.tier_id = f.new_tier_id
    left join ready as rn on rn.pool_id = f.pool_id and rn.tier_id = f.new_tier_id
    cross join lateral (select
        coalesce(ro.vt, o.flows_vt, f.vt + f.more_vt) as old_v,
        coalesce(rn.vt, n.flows_vt) as new_v,
        f.vt + f.more_vt as own_vt
    ) as v
    cross join lateral (select
        case
            -- A client that changes tier keeps its distance from the virtual time of its tier, not its own time.
            when f.new_tier_id <> f.tier_id then v.new_v - v.old_v
            when w.is_waiting and not w.was_waiting then greatest(v.new_v - v.own_vt, 0)
            when w.is_waiting and f.new_open and not f.is_open
                then greatest(v.new_v - %(lag_tokens)s / f.new_weight - v.own_vt, 0)
            else 0
        end as vt
    ) as lift
), lanes_after as materialized (
    select l.*, f.new_tier_id, f.new_vt, l.new_has_heads and f.new_open as new_ready, a.*
    from lanes as l
    join flows_after as f on f.flow_id = l.flow_id
    cross join lateral ({aged.sql}) as a
    where l.new_queued <> l.queued
        or l.new_head_order <> l.head_order
        or l.new_has_heads <> l.has_heads
        or l.is_ready <> (l.new_has_heads and f.new_open)
        or l.tier_id <> f.new_tier_id
        or (l.is_ready and (l.vt <> f.new_vt or l.level <> a.new_level or l.ages_at is distinct from a.new_ages_at))
), lanes_gone as (
    delete from llmjobs_laneturn where ctid = any (array(select row from lanes_after))
), lanes_new as (
    insert into llmjobs_laneturn (
        lane_id, turn, flow_id, pool_id, tier_id, priority, size, level, vt, head_at, ages_at, head_order, queued, has_heads, is_ready)
    select lane_id, turn + 1, flow_id, pool_id, new_tier_id, priority, size, new_level, new_vt, new_head_at, new_ages_at, new_head_order,
        new_queued, new_has_heads, new_ready
    from lanes_after
), flows_gone as (
    delete from llmjobs_flowturn where ctid = any (array(select row from flows_after))
), flows_new as (
    insert into llmjobs_flowturn (
        flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open, weight, max_running,
        learned, cost_ratio, output_tokens)
    select flow_id, turn + 1, pool_id, client_id, new_tier_id, new_vt, lifted + lift_vt, running + more_running, mean_cost, new_open,
        new_weight, new_max_running,
        least(learned + more_learned, 64),
        case
            when learned_estimate > 0
            then cost_ratio
                + (least(greatest(learned_cost / learned_estimate, 0.01), 100) - cost_ratio) * more_learned / (learned + more_learned)
            else cost_ratio
        end,
        case
            when more_learned = 0 then output_tokens
            when output_tokens is null then learned_output / more_learned
            else output_tokens + (learned_output / more_learned - output_tokens) * more_learned / (learned + more_learned)
        end
    from flows_after
), woken as materialized (
    select pool_id, new_tier_id as tier_id, new_level as level, min(new_vt) as vt,
        (array_agg(flow_id order by new_vt, flow_id))[1] as flow_id
    from lanes_after
    where new_ready
    group by pool_id, new_tier_id, new_level
), tiers_after as materialized (
    select t.*,
        case
            when r.vt is null and exists (select from movers)
                and exists (select from woken as w where w.pool_id = t.pool_id and w.tier_id = t.tier_id)
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
    left join ready as r on r.pool_id = t.pool_id and r.tier_id = t.tier_id
    where t.is_changed or exists (select from woken as w where w.pool_id = t.pool_id and w.tier_id = t.tier_id)
), tiers_gone as (
    delete from llmjobs_tierturn where ctid = any (array(select row from tiers_after))
), tiers_new as (
    insert into llmjobs_tierturn (
        pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, mean_cost, floors, floor_flows)
    select t.pool_id, t.tier_id, t.turn + 1, t.vt + t.more_vt + t.lift_vt, t.lifted + t.lift_vt, t.served_vt, t.flows_vt,
        t.running + t.more_running, t.mean_cost, f.vts, f.flows
    from tiers_after as t
    cross join lateral (
        select array_agg(least(o.vt, w.vt) order by k.level) as vts,
            array_agg(
                case when w.vt < o.vt then w.flow_id when w.vt = o.vt then least(w.flow_id, o.flow_id) else o.flow_id end
                order by k.level
            ) as flows
        from generate_series(0, 9) as k (level)
        cross join lateral (
            select t.floors[k.level + 1] as vt, coalesce(t.floor_flows[k.level + 1], 0) as flow_id
        ) as o
        left join woken as w on w.pool_id = t.pool_id and w.tier_id = t.tier_id and w.level = k.level
    ) as f
), shard_gone as (
    delete from llmjobs_shardturn where ctid = any (array(select row from shard)) and (%(is_sweep)s or exists (select from found))
), shard_new as (
    insert into llmjobs_shardturn (
        shard_id, turn, aged_to, sweep_from, folded_to, bound_id, bound_xid, next_bound_id, next_bound_xid, next_bound_at)
    select s.shard_id, s.turn + 1,
        case
            when not %(is_sweep)s then s.aged_to
            -- Others may be due at the very time of the last one taken.
            when (select count(*) from due) >= {rows} then (select max(ages_at) from due) - interval '1 microsecond'
            else statement_timestamp()
        end,
        case
            when %(is_sweep)s and n.seen < {rows} and not (select yes from is_missing) and x.oldest >= s.bound_xid then s.bound_id
            else s.sweep_from
        end,
        m.folded_to,
        case when is_due then s.next_bound_id else s.bound_id end,
        case when is_due then s.next_bound_xid else s.bound_xid end,
        case when is_due then m.folded_to else s.next_bound_id end,
        case when is_due then x.next else s.next_bound_xid end,
        case when is_due then statement_timestamp() else s.next_bound_at end
    from shard as s
    cross join lateral (select greatest(s.folded_to, (select max(id) from found)) as folded_to) as m
    cross join (select count(*) as seen from news) as n
    cross join (
        select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest, pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next
    ) as x
    cross join lateral (select statement_timestamp() - s.next_bound_at > make_interval(secs => 2) as is_due) as d
    where %(is_sweep)s or exists (select from found)
)
select count(*)::int as taken,
    (select count(*) from news) >= {rows} or (select count(*) from due) >= {rows} as more,
    set_config('llmjobs.is_missing', case when %(is_grown)s then '' else (select yes from is_missing)::text end, true) = 'true' as is_missing,
    set_config('enable_nestloop', 'on', true) as nestloop
from found
