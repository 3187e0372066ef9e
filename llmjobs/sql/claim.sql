-- Called by: queue.claim, fifth, under the turnstile.
-- Parameters: pool; count: the most jobs claimed; worker (uuid); tiers: ids that this worker serves, null for all; short_only; exclude: lanes that the
-- claim before this one found locked.
-- Literal: {n}, at least count, one of a few sizes: the most lanes looked at, and heads read of each.
-- Returns: a row a job with all that its attempt needs, or one row of nulls; in each, what to know of the claim itself:
-- slept (lanes put to sleep), skipped (lanes whose heads others hold locked).
-- Order: the tier with the least virtual time; in it the most urgent priority; in that the flow with the least virtual
-- time; in that FIFO. What is claimed is charged at once with its estimate; settle corrects that.
-- Locks: the claimed jobs, SKIP LOCKED, in the order of their ids.
-- Index: laneturn_ready from each level's floor, job_ready from each lane's head. Every range has a lower bound, so dead
-- entries behind it are never walked, and the cost grows neither with the backlog nor with the number of clients. The
-- heads read of a lane follow its weight and its lag: a fixed few would starve heavy clients in large claims.
with pool as materialized (
    select m.id, m.max_running
    from llmjobs_model as m
    join llmjobs_provider as p on p.id = m.provider_id
    where m.id = %(pool)s and not m.is_paused and not p.is_paused
), all_tiers as materialized (
    select t.*, k.weight
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
    select *
    from all_tiers
    where %(tiers)s::bigint[] is null or tier_id = any (%(tiers)s::bigint[])
), scanned as materialized (
    select t.weight as tier_weight, t.vt as tier_vt, l.*
    from tiers as t
    cross join generate_series(0, 9) as k (level)
    cross join lateral (
        select *
        from llmjobs_laneturn
        where pool_id = %(pool)s and tier_id = t.tier_id and level = k.level and vt >= t.floors[k.level + 1] and is_ready
            and lane_id <> all (%(exclude)s::bigint[])
        order by vt, lane_id
        limit {n}
    ) as l
    where t.floors[k.level + 1] < 'infinity' and (not %(short_only)s or k.level %% 2 = 0)
), lanes as materialized (
    select l.*, i.priority, i.size, f.client_id, f.mean_cost, c.weight,
        coalesce(c.max_running, k.max_running, 2147483647) - f.running as room
    from (select *, row_number() over (partition by tier_id order by level / 2, vt, lane_id) as rank from scanned) as l
    join llmjobs_lane as i on i.id = l.lane_id
    cross join lateral (select * from llmjobs_flowturn where flow_id = l.flow_id order by turn desc limit 1) as f
    join llmjobs_client as c on c.id = f.client_id
    join llmjobs_tier as k on k.id = l.tier_id
    where l.rank <= {n}
), wanted as materialized (
    select *,
        greatest(1, least({n}, room,
            2 + ceil(2 * {n} * weight / sum(weight) over (partition by tier_id))
            + coalesce(ceil((max(vt) over (partition by tier_id, priority) - vt) * weight / nullif(mean_cost, 0)), {n})
        ))::int as asked
    from lanes
), heads as materialized (
    select w.*, j.id as job_id, j.lane_order, j.est_cost as cost
    from wanted as w
    cross join lateral (
        select id, lane_order, est_cost
        from llmjobs_job
        where pool_id = %(pool)s and client_id = w.client_id and priority = w.priority and size = w.size
            and lane_order >= w.head_order and state = 'queued'
        order by lane_order
        limit w.asked
    ) as j
), tagged as (
    select *,
        vt + (sum(cost) over (partition by flow_id order by priority, lane_order) - cost) / weight as tag,
        row_number() over (partition by flow_id order by priority, lane_order) as nth
    from heads
), ordered as (
    select *, tier_vt + (sum(cost) over (partition by tier_id order by priority, tag, lane_order) - cost) / tier_weight as tier_tag
    from tagged
    where nth <= room
), chosen as materialized (
    select *
    from (select *, row_number() over (order by tier_tag, tier_id, priority, tag, lane_order) as place from ordered) as o
    where place <= least(%(count)s, (select coalesce(pool.max_running, 2147483647) from pool) - (select sum(running) from all_tiers))
), locked as materialized (
    select id, coalesce(expires_at <= statement_timestamp(), false) as is_expired
    from llmjobs_job
    where id = any (array(select job_id from chosen)) and state = 'queued'
    order by id
    for update skip locked
), started as materialized (
    update llmjobs_job as j
    set state = case when e.is_expired then 'expired' else 'running' end,
        attempt = j.attempt + case when e.is_expired then 0 else 1 end,
        epoch = j.epoch + 1,
        worker_id = case when not e.is_expired then %(worker)s::uuid end,
        started_at = case when e.is_expired then j.started_at else statement_timestamp() end,
        finished_at = case when e.is_expired then statement_timestamp() end,
        tier_id = c.tier_id
    from locked as e
    join chosen as c on c.job_id = e.id
    where j.id = e.id
    returning j.*, c.place, c.flow_id, c.lane_id, c.cost, c.weight, c.tier_weight, c.tag
), attempts as (
    insert into llmjobs_attempt (job_id, number, pool_id, tier_id, worker_id, charged, flow_weight, tier_weight)
    select id, attempt, pool_id, tier_id, worker_id, cost, weight, tier_weight
    from started
    where state = 'running'
), expired_events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'done', '{"status": "expired"}'
    from started
    where state = 'expired'
), lanes_seen as materialized (
    select w.lane_id, w.flow_id, w.asked,
        count(h.job_id) as found,
        count(s.id) as taken,
        count(*) filter (where c.job_id is not null and s.id is null) as locked_count,
        coalesce(min(h.lane_order) filter (where s.id is null), max(h.lane_order) + 1) as head_order
    from wanted as w
    left join heads as h on h.lane_id = w.lane_id
    left join started as s on s.id = h.job_id
    left join chosen as c on c.job_id = h.job_id
    group by w.lane_id, w.flow_id, w.asked
), charge as materialized (
    select flow_id, tier_id, sum(cost) as cost, avg(cost) as mean_cost, count(*)::int as jobs, max(weight) as weight, min(tag) as tag
    from started
    where state = 'running'
    group by flow_id, tier_id
), flows_after as materialized (
    select t.*, x.cost, x.jobs, x.mean_cost as new_mean_cost, t.vt + x.cost / x.weight as new_vt,
        t.running + x.jobs < coalesce(c.max_running, k.max_running, 2147483647) as new_open
    from charge as x
    cross join lateral (
        select ctid as row, *
        from llmjobs_flowturn
        where flow_id = x.flow_id
        order by turn desc
        limit 1
    ) as t
    join llmjobs_client as c on c.id = t.client_id
    join llmjobs_tier as k on k.id = t.tier_id
), lanes_after as materialized (
    select t.*, f.new_vt, f.new_open,
        coalesce(s.head_order, t.head_order) as new_head_order,
        t.queued - coalesce(s.taken, 0)::int as new_queued,
        t.has_heads and not coalesce(s.found < s.asked and s.taken = s.found, false) as new_has_heads
    from (select flow_id from lanes_seen where taken > 0 or found = 0 union select flow_id from charge) as x
    join llmjobs_lane as i on i.flow_id = x.flow_id
    cross join lateral (
        select ctid as row, *
        from llmjobs_laneturn
        where lane_id = i.id
        order by turn desc
        limit 1
    ) as t
    left join lanes_seen as s on s.lane_id = t.lane_id
    left join flows_after as f on f.flow_id = t.flow_id
    where t.is_ready
), lanes_gone as (
    delete from llmjobs_laneturn where ctid = any (array(select row from lanes_after))
), lanes_new as (
    insert into llmjobs_laneturn (lane_id, turn, flow_id, pool_id, tier_id, level, vt, head_order, queued, has_heads, is_ready)
    select lane_id, turn + 1, flow_id, pool_id, tier_id, level, coalesce(new_vt, vt), new_head_order, new_queued,
        new_has_heads, new_has_heads and coalesce(new_open, true)
    from lanes_after
), flows_gone as (
    delete from llmjobs_flowturn where ctid = any (array(select row from flows_after))
), flows_new as (
    insert into llmjobs_flowturn (flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open)
    select flow_id, turn + 1, pool_id, client_id, tier_id, new_vt, lifted, running + jobs,
        case when mean_cost = 0 then new_mean_cost else mean_cost + (new_mean_cost - mean_cost) / 8 end, new_open
    from flows_after
), tiers_after as materialized (
    select t.*, coalesce(x.cost, 0) as cost, coalesce(x.jobs, 0) as jobs, x.tag, f.floors as new_floors
    from tiers as t
    left join (
        select tier_id, sum(cost) as cost, sum(jobs)::int as jobs, min(tag) as tag from charge group by tier_id
    ) as x on x.tier_id = t.tier_id
    cross join lateral (
        select array(
            -- A level that was not wholly looked at keeps its floor; an empty one is closed until a lane wakes there.
            select case
                when cardinality(%(exclude)s::bigint[]) > 0 or (%(short_only)s and k.level %% 2 = 1) then t.floors[k.level + 1]
                else coalesce((select min(s.vt) from scanned as s where s.tier_id = t.tier_id and s.level = k.level), 'infinity')
            end
            from generate_series(0, 9) as k (level)
            order by k.level
        ) as floors
    ) as f
    where x.tier_id is not null or f.floors <> t.floors
), tiers_gone as (
    delete from llmjobs_tierturn where ctid = any (array(select row from tiers_after))
), tiers_new as (
    insert into llmjobs_tierturn (pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, floors)
    select pool_id, tier_id, turn + 1, vt + cost / weight, lifted,
        case when jobs > 0 then greatest(served_vt, vt) else served_vt end,
        greatest(flows_vt, tag), running + jobs, new_floors
    from tiers_after
), summary as (
    select
        count(*) filter (where found < asked and taken = found)::int as slept,
        coalesce(array_agg(lane_id) filter (where locked_count > 0 and taken = 0), '{}') as skipped
    from lanes_seen
)
select y.slept, y.skipped, s.id, s.public_id, s.state, s.attempt, s.epoch, s.failures, s.endpoint, s.client_id, s.size, s.max_attempts,
    s.timeout_s, s.cost as charged, s.est_input_tokens, s.est_output_tokens,
    extract(epoch from s.retry_until - statement_timestamp())::float8 as retry_left_s,
    extract(epoch from statement_timestamp() - greatest(s.created_at, s.available_at))::float8 as waited_s,
    r.body, r.max_cost_usd, coalesce(o.cost_usd, 0) as spent_usd, m.id as pool_id, m.name as model,
    coalesce(nullif(m.upstream_name, ''), m.name) as upstream_name, m.input_usd_per_mtok, m.output_usd_per_mtok,
    p.name as provider, p.base_url, p.api_key_env, c.name as client, t.name as tier
from summary as y
left join started as s on true
left join llmjobs_jobrequest as r on r.job_id = s.id
left join llmjobs_jobresult as o on o.job_id = s.id
left join llmjobs_model as m on m.id = s.pool_id
left join llmjobs_provider as p on p.id = m.provider_id
left join llmjobs_client as c on c.id = s.client_id
left join llmjobs_tier as t on t.id = s.tier_id
order by s.place
