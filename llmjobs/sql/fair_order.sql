-- Included by: claim and order, which decide alike who is next.
-- Parameters: pool; tiers: ids, null for all; short_only; exclude: ids of jobs that are left out; is_look: nothing will be
-- claimed, so a pause does not matter.
-- Parameter: count, the most jobs wanted. Literal: {n}, at least count, one of a few sizes.
-- Gives: `ordered`, the heads by place, in fair order (of equals the older flow first), which holds up to the first wall; `heads`, where a lane that turned
-- out empty has a row without a job.
-- Order: the tier with the least virtual time; in it the most urgent level; in that the flow with the least virtual time;
-- in that FIFO. A head's cost is its estimate times what the flow's settled jobs cost by theirs; so are its tokens, unless
-- the provider counts up front what the request allows at most. A flow whose client has limits of its own ends where
-- these are used up (not for a look, which asks for later).
-- Needs: `gate` before it, with is_open, token_policy and tokens_most (null: no limit).
-- Index: laneturn_ready from each level's floor, job_ready from each lane's head. Every range has a lower bound, so dead
-- entries behind it are never walked, and the cost grows neither with the backlog nor with the number of clients. How
-- many lanes are looked at in a tier, and heads in a lane, is a guess from weights and lags. Where it was too low there
-- stands a wall.
pool as materialized (
    select m.id, m.max_running
    from llmjobs_model as m
    join llmjobs_provider as p on p.id = m.provider_id
    where m.id = %(pool)s
        and (
            %(is_look)s
            or (
                not m.is_paused and not p.is_paused and coalesce(current_setting('llmjobs.is_missing', true), '') <> 'true'
                and not exists (select from llmjobs_claimspause where resumed_at is null) -- claimspause_open: one entry at most
            )
        )
        and (select is_open from gate)
), all_tiers as materialized (
    select t.*, k.weight, k.aging_s
    from pool
    cross join llmjobs_tier as k
    cross join lateral (
        select ctid as row, *
        from llmjobs_tierturn
        where pool_id = pool.id and tier_id = k.id
        order by turn desc
        limit 1
    ) as t
), tiers as materialized (
    -- `likely`: how many of these jobs the tier may get, by its weight and its lag; a guess, which walls make safe.
    select t.pool_id, t.tier_id, t.row, t.turn, t.vt, t.lifted, t.served_vt, t.flows_vt, t.running, t.mean_cost, t.floors, t.floor_flows, t.weight,
        case
            when %(is_look)s then %(count)s::int
            -- Each job that is left out may hide a lane.
            when cardinality(%(exclude)s::bigint[]) > 0 then least({n}, %(count)s::int + cardinality(%(exclude)s::bigint[]))
            else least(
                %(count)s::int,
                1 + ceil(1.5 * %(count)s::int * weight / sum(weight) over ())
                + case when lag = 0 then 0 else coalesce(ceil(lag * weight / nullif(mean_cost, 0)), %(count)s::int) end
            )
        end::int as likely
    from (select *, max(vt) over () - vt as lag from all_tiers) as t
    where (%(tiers)s::bigint[] is null or tier_id = any (%(tiers)s::bigint[]))
        and exists (select from unnest(t.floors) as f (vt) where f.vt < 'infinity')
), scanned as materialized (
    select t.weight as tier_weight, t.vt as tier_vt, t.likely, l.*,
        dense_rank() over (partition by t.tier_id order by l.level / 2, l.vt, l.flow_id) as rank
    from tiers as t
    cross join generate_series(0, 9) as k (level)
    cross join lateral (
        select lane_id, flow_id, tier_id, priority, size, level, vt, head_order,
            row_number() over (order by vt, flow_id, lane_id) = {n} + 5 as is_edge
        from llmjobs_laneturn
        where pool_id = %(pool)s and tier_id = t.tier_id and level = k.level and is_ready
            and (vt, flow_id) >= (t.floors[k.level + 1], coalesce(t.floor_flows[k.level + 1], 0))
        order by vt, flow_id, lane_id
        limit {n} + 5 -- one more than wanted; and a flow has up to five lanes in a level, where some have aged
    ) as l
    where t.floors[k.level + 1] < 'infinity' and (not %(short_only)s or k.level %% 2 = 0)
), lanes as materialized (
    select l.lane_id, l.flow_id, l.tier_id, l.tier_weight, l.tier_vt, l.likely, l.level / 2 as urgency, l.vt, l.head_order,
        case l.priority when 0 then 0 when 1 then 1 when 5 then 2 when 8 then 3 else 4 end as own_urgency,
        l.priority, l.size, f.client_id, f.mean_cost, f.cost_ratio, f.tokens_ratio, f.weight, f.rpm, f.tpm,
        least(coalesce(f.max_running, 2147483647) - greatest(f.running, 0), r.requests_room)::int as room,
        r.requests_room, r.tokens_room,
        o.requests_at as own_requests_at, o.tokens_at as own_tokens_at
    from scanned as l
    cross join lateral (select * from llmjobs_flowturn where flow_id = l.flow_id order by turn desc limit 1) as f
    left join lateral (
        select requests_at, tokens_at, tokens_due, requests_rate, tokens_rate
        from llmjobs_bucketturn
        where kind = 2 and of_id = f.client_id
        order by turn desc
        limit 1
    ) as b on not %(is_look)s and (f.rpm is not null or f.tpm is not null)
    cross join (select extract(epoch from statement_timestamp())::float8 as now) as n
    -- A client's bucket holds a minute's worth. Where its limit was another when it was filled, what is in it stays; of a
    -- limit that was lowered it is full at most.
    cross join lateral (select
        n.now + coalesce(least(greatest(b.requests_at - n.now, 0) * coalesce(b.requests_rate * 60 / f.rpm, 1), 60), 0) as requests_at,
        n.now + greatest(
            least(greatest(b.tokens_at - n.now, 0) * coalesce(b.tokens_rate * 60 / f.tpm, 1) + coalesce(b.tokens_due * 60 / f.tpm, 0), 60), 0
        ) as tokens_at
    ) as o
    cross join lateral (select
        case when %(is_look)s or f.rpm is null then 2147483647 else floor(f.rpm * (1 - (o.requests_at - n.now) / 60) + 1e-6) end as requests_room,
        case when %(is_look)s or f.tpm is null then 'infinity' else f.tpm * (1 - (o.tokens_at - n.now) / 60) + 1e-3 end as tokens_room
    ) as r
    where l.rank <= l.likely
), wanted as materialized (
    select *,
        greatest(1, least(likely, room,
            1 + ceil(1.5 * likely * weight / sum(weight) over (partition by tier_id))
            + case when lag = 0 then 0 else coalesce(ceil(lag * weight / nullif(mean_cost, 0)), likely) end
        ))::int as asked
    from (select *, max(vt) over (partition by tier_id, urgency) - vt as lag from lanes) as l
), heads as materialized (
    -- With what comes after each: where the lane goes on, once this one is taken. One more than asked is read: a wall,
    -- which nobody passes, since behind it the lane may go on with what was not read.
    -- Once a lane that has aged is served, what comes after has its own priority again.
    select w.lane_id, w.flow_id, w.tier_id, w.tier_weight, w.tier_vt, w.priority, w.size,
        case when j.nth_of_lane > 1 then w.own_urgency else w.urgency end as urgency, w.vt, w.weight, w.room, w.head_order, w.client_id,
        w.rpm, w.tpm, w.requests_room, w.tokens_room, w.own_requests_at, w.own_tokens_at,
        j.id as job_id, j.lane_order, j.next_order, j.est_cost * w.cost_ratio as cost, j.nth_of_lane > w.asked as is_wall,
        least(
            case g.token_policy
                when 'max_tokens' then j.est_input_tokens::float8 + coalesce(j.max_output_tokens, j.est_output_tokens)
                else (j.est_input_tokens::float8 + j.est_output_tokens) * w.tokens_ratio
            end,
            g.tokens_most -- what never fits goes when all is free, and the provider says so
        ) as tokens
    from wanted as w
    cross join gate as g
    left join lateral (
        select *,
            row_number() over (order by lane_order) as nth_of_lane,
            lead(lane_order) over (order by lane_order) as next_order
        from (
            select id, lane_order, est_cost, est_input_tokens, est_output_tokens, max_output_tokens
            from llmjobs_job
            where pool_id = %(pool)s and client_id = w.client_id and priority = w.priority and size = w.size
                and lane_order >= w.head_order and state = 'queued' and id <> all (%(exclude)s::bigint[])
            order by lane_order
            limit w.asked + 1
        ) as h
    ) as j on true
), tagged as materialized (
    select job_id, lane_id, flow_id, client_id, tier_id, tier_weight, tier_vt, weight, priority, size, urgency, lane_order, next_order,
        cost, is_wall, vt + (sum(cost) over w - cost) / weight as tag, tokens, row_number() over w as nth, room, rpm, tpm, requests_room, tokens_room,
        own_requests_at, own_tokens_at, sum(least(tokens, tpm)) over w as tokens_sum
    from heads
    where job_id is not null
    window w as (partition by flow_id order by urgency, lane_order)
), ordered as materialized (
    select *, row_number() over (order by tier_tag, tier_id, urgency, tag, flow_id, lane_order) as place
    from (
        select *, tier_vt + (sum(cost) over (partition by tier_id order by urgency, tag, flow_id, lane_order) - cost) / tier_weight as tier_tag
        from (
            select job_id, lane_id, flow_id, client_id, tier_id, tier_weight, tier_vt, weight, priority, size, urgency, lane_order,
                next_order, cost, is_wall, tag, tokens
            from tagged
            where nth <= room and tokens_sum <= tokens_room
            union all
            -- The first of the lanes that were not looked at; and where more were ready than were read, the last one read.
            select null, lane_id, flow_id, null, tier_id, tier_weight, tier_vt, null, null, null, level / 2, 9223372036854775807, null, 0, true, vt, 0
            from scanned
            where rank = likely + 1 or is_edge
        ) as t
    ) as t
)
