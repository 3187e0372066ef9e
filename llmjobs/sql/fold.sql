-- Called by: queue.claim, fourth, under the turnstile.
-- Parameters: shard; is_sweep: take rows behind the bound too, and look at the lanes that are due to age; is_full: sweep
-- from the very first row; lag_tokens: how much a flow that was closed may lag.
-- Literal: {rows}, the most rows of the inbox taken at once.
-- Parameter: is_grown: `grow` came before, in the same transaction.
-- Returns: taken (rows of the inbox), more (there may be further ones, or further lanes that are due), is_missing (it met
-- rows whose flow, lane or tier turn does not exist yet: `grow` makes them, and the claim after this one takes nothing).
-- Why no nested loops: the inbox is nearly empty whenever statistics are taken, so that the planner expects a few rows and
-- would compare each of thousands with each. What is looked up by key stands in a subquery with a limit, which leaves
-- the planner no choice. So it is in the claim after it, which joins hundreds of jobs with themselves.
-- Turns what submit, settle, cancel and the others appended into new turns: counts, heads, corrections of virtual
-- time; wakes lanes, opens and closes flows. A flow or tier that wakes from idleness is lifted to the virtual time of
-- its siblings: no credit is saved while idle, no history is forgiven. A lane whose head waits long rises by a priority
-- each aging_s of its tier. A flow learns from its completed jobs what the next will cost.
-- Buckets hear what was queued, started and used, and what the provider said: a 429 blocks a pool, a refused key or quota
-- opens the breaker of an account (of a pool, where only its model was forbidden), an answer closes it. What changes a
-- level by a rate is only noted here, and put in by the next claim, which alone knows the rates.
-- Parameters: breaker_strikes, down_strikes, probe_s, probe_max_s, slow_down_ramp_s: as of conf.py.
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
    select i.*, f.id as flow_id, l.id as lane_id, m.provider_id
    from news as i
    cross join lateral (select provider_id from llmjobs_model where id = i.pool_id limit 1) as m
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
), opening as materialized (
    -- Flows whose client's bucket has room again.
    select o.flow_id, o.pool_id, o.opens_at
    from (select extract(epoch from statement_timestamp())::float8 as now) as n
    cross join lateral (
        (
            select t.flow_id, t.pool_id, t.opens_at
            from llmjobs_flowturn as t
            -- A bound that lies ahead is of a clock that was set back.
            where t.opens_at is not null and t.opens_at <= n.now
                and t.opens_at > (select case when opened_to > n.now then n.now - 10 else opened_to end from shard)
            order by t.opens_at
            limit {rows}
        )
        union all
        -- And so is a time that no bucket takes to drain.
        (select t.flow_id, t.pool_id, n.now from llmjobs_flowturn as t where t.opens_at > n.now + 300 order by t.opens_at limit {rows})
    ) as o
    join llmjobs_model as m on m.id = o.pool_id
    where m.shard_id = %(shard)s
), lane_change as materialized (
    select lane_id, sum(queued) as queued, min(head_order) as head_order, min(head_at) as head_at
    from found
    where lane_id is not null
    group by lane_id
), flow_change as materialized (
    select flow_id, sum(running) as running, sum(flow_vt) as vt, sum(learned) as learned,
        sum(learned_estimate) as learned_estimate, sum(learned_cost) as learned_cost, sum(learned_output) as learned_output,
        sum(learned_tokens) as learned_tokens, sum(learned_est_tokens) as learned_est_tokens, sum(learned_sq_error) as learned_sq_error, sum(tokens) as tokens
    from (
        select flow_id, running, flow_vt, learned, learned_estimate, learned_cost, learned_output,
            learned_tokens, learned_est_tokens, learned_sq_error, tokens
        from found
        union all
        select flow_id, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 from (select flow_id from due union select flow_id from opening) as d
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
        select pool_id from found union select pool_id from due union select pool_id from opening
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
        x.learned_tokens, x.learned_est_tokens, x.learned_sq_error,
        o.new_rpm, o.new_tpm, o.new_opens_at,
        not c.is_paused and f.running + x.running < coalesce(c.max_running, k.max_running, 2147483647)
            and o.new_opens_at is null as new_open
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
    cross join lateral (select
        coalesce(c.rpm, k.rpm) as new_rpm,
        coalesce(c.tpm, k.tpm) as new_tpm,
        -- An edit of the limits opens it, and what was given back: the next claim looks at the bucket as it is then.
        case
            when f.opens_at > extract(epoch from statement_timestamp())
                and f.opens_at < extract(epoch from statement_timestamp()) + 300 -- later than that: the clock was set back
                and x.tokens >= 0
                and f.rpm is not distinct from coalesce(c.rpm, k.rpm) and f.tpm is not distinct from coalesce(c.tpm, k.tpm)
            then f.opens_at
        end as new_opens_at
    ) as o
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
        flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open, opens_at, weight, max_running, rpm, tpm,
        learned, cost_ratio, output_tokens, tokens_ratio, error_var)
    select flow_id, turn + 1, pool_id, client_id, new_tier_id, new_vt, lifted + lift_vt, running + more_running, mean_cost, new_open,
        new_opens_at, new_weight, new_max_running, new_rpm, new_tpm,
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
        end,
        case
            when learned_est_tokens > 0
            then tokens_ratio
                + (least(greatest(learned_tokens / learned_est_tokens, 0.01), 100) - tokens_ratio) * more_learned / (learned + more_learned)
            else tokens_ratio
        end,
        case
            when more_learned > 0
            then error_var + (learned_sq_error / more_learned - error_var) * more_learned / (learned + more_learned)
            else error_var
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
), counted as materialized (
    -- What is new of each bucket: the pool's, its account's, its client's.
    select b.kind, b.of_id, sum(c.queued) as more_queued, sum(c.running) as more_running, sum(c.tokens) as more_due,
        sum(c.learned) as more_learned, sum(c.learned_tokens) as learned_tokens, sum(c.learned_sq_error) as learned_sq_error,
        max(c.answered_at) as answered_at
    from (
        select pool_id, provider_id, client_id, sum(queued) as queued, sum(running) as running, sum(tokens) as tokens,
            sum(learned) as learned, sum(learned_tokens) as learned_tokens, sum(learned_sq_error) as learned_sq_error,
            max(answered_at) as answered_at
        from found
        group by pool_id, provider_id, client_id
    ) as c
    cross join lateral (values (0, c.pool_id), (1, c.provider_id), (2, c.client_id)) as b (kind, of_id)
    where b.kind < 2 or c.tokens <> 0
    group by b.kind, b.of_id
), said as materialized (
    -- What the provider said. Of a pool: "not now", "slow down", its limits, "not this model". Of an account: the rest.
    select b.kind, b.of_id,
        coalesce(sum(s.refusals) filter (where b.kind = 0), 0) as refusals,
        coalesce(sum(s.slow_downs) filter (where b.kind = 0), 0) as slow_downs,
        coalesce(sum(s.lies) filter (where b.kind = 0), 0) as lies,
        coalesce(sum(case b.kind when 0 then s.forbidden else s.auth end), 0) as strikes,
        coalesce(sum(s.down) filter (where b.kind = 1), 0) as downs,
        coalesce(sum(s.quota) filter (where b.kind = 1), 0) as quota,
        coalesce(sum(s.unblock), 0) > 0 as is_unblock,
        max(s.wait_until) filter (where b.kind = 0 and (s.refusals > 0 or s.slow_downs > 0)) as wait_until,
        max(s.since) filter (where case b.kind when 0 then s.forbidden > 0 else s.auth > 0 or s.quota > 0 or s.down > 0 end) as since,
        min(s.requests_limit) filter (where b.kind = 0) as requests_limit,
        min(s.tokens_limit) filter (where b.kind = 0) as tokens_limit,
        (array_agg(s.requests_left order by s.at desc) filter (where s.requests_left is not null and b.kind = 0))[1] as requests_left,
        (array_agg(s.tokens_left order by s.at desc) filter (where s.tokens_left is not null and b.kind = 0))[1] as tokens_left,
        max(s.at) filter (where coalesce(s.requests_left, s.tokens_left) is not null) as left_at,
        max(s.at) filter (where coalesce(s.requests_limit, s.tokens_limit) is not null) as told_at,
        max(s.at) as at,
        (array_agg(s.words order by s.at desc) filter (where s.words <> ''))[1] as words
    from (select pool_id, provider_id, signal from found where signal is not null) as i
    cross join lateral jsonb_to_record(i.signal) as s (
        refusals int, slow_downs int, lies int, auth int, forbidden int, quota int, down int, unblock int, at float8, since float8,
        wait_until float8, requests_limit float8, requests_left float8, tokens_limit float8, tokens_left float8, words text)
    cross join lateral (values (0, i.pool_id), (1, i.provider_id)) as b (kind, of_id)
    group by b.kind, b.of_id
), buckets as materialized (
    select b.*, x.more_queued, x.more_running, x.more_due, x.more_learned, x.learned_tokens, x.learned_sq_error, n.now,
        coalesce(s.refusals, 0) as more_refusals, coalesce(s.slow_downs, 0) as slow_downs, coalesce(s.lies, 0) as more_lies,
        coalesce(s.quota, 0) as quota, coalesce(s.is_unblock, false) as is_unblock, s.wait_until, s.at, s.left_at as new_left_at, s.told_at as new_told_at, s.words,
        s.requests_limit as new_requests_limit, s.tokens_limit as new_tokens_limit, s.requests_left as new_requests_left,
        s.tokens_left as new_tokens_left, coalesce(s.strikes, 0) as more_strikes, coalesce(s.downs, 0) as more_downs,
        j.*,
        case when j.is_answered then 0 else b.strikes + coalesce(s.strikes, 0) end as new_strikes,
        -- Where some were answered, the others did not fail in a row.
        case when x.answered_at is not null then 0 else b.downs + coalesce(s.downs, 0) end as new_downs,
        -- Whether a refusal counts: of an open breaker only the one of a call that was tried since.
        not j.is_broken or coalesce(s.since > b.struck_at, false) as is_counted
    from counted as x
    cross join lateral (
        select ctid as row, * from llmjobs_bucketturn where kind = x.kind and of_id = x.of_id order by turn desc limit 1
    ) as b
    left join said as s on s.kind = x.kind and s.of_id = x.of_id
    cross join (select extract(epoch from statement_timestamp())::float8 as now) as n
    cross join lateral (select
        coalesce(b.blocked_by <> 'rate_limit', false) as is_broken,
        coalesce(x.answered_at > b.struck_at, false) as is_answered
    ) as j
    where x.more_queued <> 0 or x.more_running <> 0 or x.more_due <> 0 or x.more_learned <> 0 or s.kind is not null
        or (x.answered_at is not null and (b.strikes > 0 or b.downs > 0 or b.block_s > 0))
), buckets_after as materialized (
    select b.*, o.reason, w.new_block_s,
        case
            when b.is_unblock then case when b.is_broken then b.blocked_by end
            when o.reason is not null then o.reason
            when b.is_broken and not b.is_answered then b.blocked_by
            -- A breaker that closes opens its pools as a rate limit that ended: without a burst.
            when b.is_broken or b.more_refusals + b.slow_downs > 0 then 'rate_limit'
            else b.blocked_by
        end as new_blocked_by,
        case
            when b.is_unblock then case when b.is_broken then b.now end
            when o.reason is not null then b.now + w.new_block_s
            when b.is_broken and not b.is_answered then b.blocked_until
            when b.is_broken then b.now
            -- Until when it said, the first time; where that was not enough, it did not know, or did not say.
            when b.more_refusals + b.slow_downs > 0
            then greatest(b.blocked_until, b.wait_until, case when b.wait_until is null or b.block_s > 0 then b.now + w.new_block_s end)
            else b.blocked_until
        end as new_blocked_until
    from buckets as b
    cross join lateral (select case
        when b.quota > 0 and b.is_counted then 'provider_quota'
        when b.more_strikes > 0 and b.is_counted and (b.is_broken or b.new_strikes >= %(breaker_strikes)s) then 'provider_auth'
        when b.more_downs > 0 and b.is_counted and (b.is_broken or b.new_downs >= %(down_strikes)s) then 'provider_down'
    end as reason) as o
    cross join lateral (select case
        when o.reason is not null and b.is_broken then least(b.block_s * 2, %(probe_max_s)s)
        when o.reason is not null then %(probe_s)s / case o.reason when 'provider_down' then 6 else 1 end
        -- Longer with each in a row; those of calls that were on their way already say nothing new.
        when b.more_refusals + b.slow_downs > 0 and coalesce(b.blocked_until <= b.at, true) then least(greatest(b.block_s * 2, 1), 60)
        when b.is_answered and b.more_refusals + b.slow_downs = 0 then 0
        else b.block_s
    end as new_block_s) as w
), buckets_gone as (
    delete from llmjobs_bucketturn where ctid = any (array(select row from buckets_after))
), buckets_new as (
    insert into llmjobs_bucketturn (
        kind, of_id, turn, requests_at, tokens_at, tokens_due, requests_rate, tokens_rate, moved_at, opens_at, held_until, held_by, waits_since, requests, tokens, refusals, lies,
        queued, running, jitter_s, largest, learned, mean_tokens, error_var, requests_limit, tokens_limit, told_at, requests_left, tokens_left, left_at,
        rate_factor, factor_at, blocked_by, blocked_until, block_s, strikes, downs, struck_at)
    select kind, of_id, turn + 1, requests_at, tokens_at, tokens_due + more_due, requests_rate, tokens_rate, moved_at,
        -- What was given back, or another limit, may open it earlier.
        case when more_due >= 0 and at is null then opens_at end, held_until, held_by, waits_since,
        requests, tokens + more_due, refusals + more_refusals, lies + more_lies, queued + more_queued, running + more_running,
        jitter_s, largest, least(learned + more_learned, 64),
        case when more_learned > 0 then mean_tokens + (learned_tokens / more_learned - mean_tokens) * more_learned / (learned + more_learned) else mean_tokens end,
        case when more_learned > 0 then error_var + (learned_sq_error / more_learned - error_var) * more_learned / (learned + more_learned) else error_var end,
        coalesce(new_requests_limit, requests_limit), coalesce(new_tokens_limit, tokens_limit),
        coalesce(new_told_at, told_at),
        coalesce(new_requests_left, requests_left), coalesce(new_tokens_left, tokens_left),
        coalesce(new_left_at, left_at),
        case when f.is_slower then greatest(f.factor / 2, 1 / 64.0) else rate_factor end,
        case when f.is_slower then now else factor_at end,
        new_blocked_by, new_blocked_until, new_block_s,
        new_strikes, new_downs,
        case when (more_strikes > 0 or more_downs > 0 or quota > 0) and is_counted then now else struck_at end
    from buckets_after
    cross join lateral (
        -- Many calls are told at once: that is one wish.
        select least(1, rate_factor * power(2, least(greatest((now - factor_at) / %(slow_down_ramp_s)s, 0), 60))) as factor,
            slow_downs > 0 and now - factor_at >= 5 as is_slower
    ) as f
), incidents_opened as (
    insert into llmjobs_incident (provider_id, pool_id, reason, words)
    select coalesce(m.provider_id, b.of_id), m.id, b.reason, coalesce(b.words, '')
    from buckets_after as b
    left join llmjobs_model as m on b.kind = 0 and m.id = b.of_id
    where b.reason is not null
    on conflict do nothing
), incidents_changed as (
    update llmjobs_incident as i
    set reason = coalesce(b.reason, i.reason),
        words = coalesce(b.words, i.words),
        closed_at = case when b.reason is null then statement_timestamp() end
    from buckets_after as b
    where i.closed_at is null and i.kind = 'breaker'
        and b.is_broken and not b.is_unblock and (b.reason is not null or b.is_answered)
        and case b.kind when 0 then i.pool_id = b.of_id else i.pool_id is null and i.provider_id = b.of_id end
), shard_gone as (
    delete from llmjobs_shardturn
    where ctid = any (array(select row from shard))
        and (%(is_sweep)s or exists (select from found) or exists (select from opening))
), shard_new as (
    insert into llmjobs_shardturn (
        shard_id, turn, opened_to, aged_to, sweep_from, folded_to, bound_id, bound_xid, next_bound_id, next_bound_xid, next_bound_at)
    select s.shard_id, s.turn + 1,
        case
            when (select count(*) from opening) >= {rows} then (select max(opens_at) from opening) - 1e-6
            else extract(epoch from statement_timestamp())
        end,
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
    where %(is_sweep)s or exists (select from found) or exists (select from opening)
)
select count(*)::int as taken,
    (select count(*) from news) >= {rows} or (select count(*) from due) >= {rows} or (select count(*) from opening) >= {rows} as more,
    set_config('llmjobs.is_missing', case when %(is_grown)s then '' else (select yes from is_missing)::text end, true) = 'true' as is_missing
from found
