-- Called by: fallback.fall_back, for each pool that is due, under the turnstile and after a fold.
-- Parameters: pool; fallback; most: how many jobs that were asked of one model may wait at its fallback; is_probing: the
-- first job stays, to find out whether the pool is open again.
-- Literal: {n}, the most moved at once, and the most lanes of a level that are looked at.
-- Returns: id of each job moved. It stays queued and keeps its order; its estimates go by the fallback's prices.
-- Order: what waits at the fallback is shared by weight, as the pool would be: tiers, in them the most urgent, in that
-- the clients that have least there by their weight, of equals the oldest. Virtual time says nothing here, since nothing is
-- charged for a move: who lags would fill the fallback alone.
-- Not moved: a job that the fallback's context is too small for, and one that would come back to its home.
-- Why under the turnstile: a claim that has seen the job here and locks it after the move would start it there. And the
-- heads of the lanes move on.
-- Locks: the jobs, SKIP LOCKED, in the order of their ids.
-- Index: laneturn_ready from each level's floor, job_ready from each lane's head, job_away for what waits there. As for a
-- claim the cost grows neither with the backlog nor with the number of clients.
with fallback as materialized (
    select id, context_window, coalesce(input_usd_per_mtok, 0) as input_usd, coalesce(output_usd_per_mtok, 0) as output_usd,
        coalesce(input_usd_per_mtok, output_usd_per_mtok) is not null as is_priced,
        -- As Model.output_weight.
        case
            when input_usd_per_mtok > 0 and output_usd_per_mtok is not null then (output_usd_per_mtok / input_usd_per_mtok)::float8
            else 1
        end as output_weight
    from llmjobs_model
    where id = %(fallback)s
), tiers as materialized (
    select k.weight, t.tier_id, t.floors, t.floor_flows
    from llmjobs_tier as k
    cross join lateral (
        select tier_id, floors, floor_flows
        from llmjobs_tierturn
        where pool_id = %(pool)s and tier_id = k.id
        order by turn desc
        limit 1
    ) as t
), lanes as materialized (
    select t.weight as tier_weight, l.*, f.client_id, f.weight
    from tiers as t
    cross join generate_series(0, 9) as k (level)
    cross join lateral (
        select lane_id, flow_id, tier_id, priority, size, level / 2 as urgency, head_order
        from llmjobs_laneturn
        where pool_id = %(pool)s and tier_id = t.tier_id and level = k.level and is_ready
            and (vt, flow_id) >= (t.floors[k.level + 1], coalesce(t.floor_flows[k.level + 1], 0))
        order by vt, flow_id, lane_id
        limit {n}
    ) as l
    cross join lateral (select client_id, weight from llmjobs_flowturn where flow_id = l.flow_id order by turn desc limit 1) as f
    where t.floors[k.level + 1] < 'infinity'
), wanted as materialized (
    -- How many heads of each are read: its share by weight and more, or by number, so that few lanes fill the fallback too.
    select l.*,
        1 + ceil({n} * greatest(
            1.5 * l.tier_weight / s.tier_weights * l.weight / sum(l.weight) over (partition by l.tier_id),
            2.0 / count(*) over ()
        ))::int as asked
    from lanes as l
    cross join (select sum(weight) as tier_weights from tiers where tier_id in (select tier_id from lanes)) as s
), heads as materialized (
    select w.lane_id, w.tier_id, w.tier_weight, w.client_id, w.weight, w.urgency, j.id as job_id, j.lane_order, coalesce(j.home_id, %(pool)s) as home_id
    from wanted as w
    cross join fallback as b
    cross join lateral (
        select id, lane_order, home_id
        from (
            select id, lane_order, home_id, est_input_tokens, est_output_tokens
            from llmjobs_job
            where pool_id = %(pool)s and client_id = w.client_id and priority = w.priority and size = w.size
                and lane_order >= w.head_order and state = 'queued'
            order by lane_order
            limit w.asked + {n} -- however many the fallback can't take
        ) as h
        where est_input_tokens::bigint + est_output_tokens <= coalesce(b.context_window, 9223372036854775807)
            and home_id is distinct from %(fallback)s
        order by lane_order
        limit w.asked
    ) as j
), away as materialized (
    select h.home_id, j.client_id, j.tier_id
    from (select distinct home_id from heads) as h
    cross join lateral (
        select client_id, tier_id
        from llmjobs_job
        where pool_id = %(fallback)s and home_id = h.home_id and state = 'queued'
        limit %(most)s::int
    ) as j
), tagged as materialized (
    select h.*,
        (coalesce(a.jobs, 0) + row_number() over (partition by h.client_id order by h.urgency, h.lane_order)) / h.weight as tag
    from heads as h
    left join (select client_id, count(*) as jobs from away group by client_id) as a on a.client_id = h.client_id
), placed as materialized (
    select t.*,
        row_number() over (order by tier_tag, tier_id, urgency, tag, lane_order) as place,
        row_number() over (partition by home_id order by tier_tag, tier_id, urgency, tag, lane_order) as place_of_home
    from (
        select t.*,
            (coalesce(a.jobs, 0) + row_number() over (partition by t.tier_id order by t.urgency, t.tag, t.lane_order)) / t.tier_weight as tier_tag
        from tagged as t
        left join (select tier_id, count(*) as jobs from away group by tier_id) as a on a.tier_id = t.tier_id
    ) as t
), chosen as materialized (
    select p.job_id
    from placed as p
    left join (select home_id, count(*) as jobs from away group by home_id) as a on a.home_id = p.home_id
    where p.place_of_home <= %(most)s::int - coalesce(a.jobs, 0) and (p.place > 1 or not %(is_probing)s)
    order by p.place
    limit {n}
), locked as materialized (
    -- By key alone, and judged once locked, as a claim does.
    select id, state, pool_id
    from llmjobs_job
    where id = any (array(select job_id from chosen))
    order by id
    for no key update skip locked
), moved as materialized (
    update llmjobs_job as j
    set pool_id = b.id,
        home_id = coalesce(j.home_id, j.pool_id),
        est_cost = j.est_input_tokens + j.est_output_tokens * b.output_weight,
        est_usd = case
            when b.is_priced
            -- No more than the column holds.
            then least((j.est_input_tokens * b.input_usd + j.est_output_tokens * b.output_usd) / 1000000, 999999.99999999)
        end
    from locked as e
    cross join fallback as b
    where e.state = 'queued' and e.pool_id = %(pool)s and j.id = e.id and j.id = any (array(select id from locked))
    returning j.id, j.pool_id, j.client_id, j.priority, j.size, j.lane_order, j.available_at
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, p.id, m.client_id, m.priority, m.size, d.sign * count(*),
        case when d.sign > 0 then min(m.lane_order) end, case when d.sign > 0 then min(m.available_at) end
    from moved as m
    cross join (values (%(pool)s::bigint, -1), (%(fallback)s, 1)) as d (pool_id, sign)
    join llmjobs_model as p on p.id = d.pool_id
    group by p.shard_id, p.id, m.client_id, m.priority, m.size, d.sign
), lanes_after as materialized (
    -- To the first that is left, or behind the last one taken: no claim moves a head while the pool is blocked, and the
    -- next call would walk through all that left before.
    select t.*, coalesce(j.lane_order, l.last_order + 1) as new_head_order
    from (
        select h.lane_id, h.client_id, max(h.lane_order) as last_order
        from moved as m
        join heads as h on h.job_id = m.id
        group by h.lane_id, h.client_id
    ) as l
    cross join lateral (select ctid as row, * from llmjobs_laneturn where lane_id = l.lane_id order by turn desc limit 1) as t
    left join lateral (
        select lane_order
        from llmjobs_job
        where pool_id = %(pool)s and client_id = l.client_id and priority = t.priority and size = t.size
            and lane_order >= t.head_order and state = 'queued' and id <> all (array(select id from moved))
        order by lane_order
        limit 1
    ) as j on true
), lanes_gone as (
    delete from llmjobs_laneturn where ctid = any (array(select row from lanes_after))
), lanes_new as (
    insert into llmjobs_laneturn (
        lane_id, turn, flow_id, pool_id, tier_id, priority, size, level, vt, head_at, ages_at, head_order, queued, has_heads, is_ready)
    select lane_id, turn + 1, flow_id, pool_id, tier_id, priority, size, level, vt, head_at, ages_at, new_head_order, queued,
        has_heads, is_ready
    from lanes_after
)
select id
from moved
