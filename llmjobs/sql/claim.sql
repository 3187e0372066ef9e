-- Called by: queue.claim, after the fold, under the turnstile.
-- Parameters: pool; count: the most jobs claimed; worker (uuid); tiers: ids that this worker serves, null for all;
-- short_only; exclude: jobs that the claims before this one found locked; is_look: false.
-- Literal: {n}, at least count, one of a few sizes.
-- Returns: a row a job with all that its attempt needs, or one row of nulls; in each, what to know of the claim itself:
-- slept (lanes put to sleep), skipped (jobs that others hold locked), is_cut (a wall ended it: there is more).
-- What is claimed, in the order of `fair_order`, is charged at once with its expected cost; settle corrects that.
-- Locks: the claimed jobs, SKIP LOCKED, in the order of their ids.
with {fair_order.sql}, quota as materialized (
    select least(%(count)s::int, coalesce(max_running, 2147483647) - (select sum(running) from all_tiers)) as jobs from pool
), chosen as materialized (
    select *
    from ordered
    where place <= (select jobs from quota)
        and place < coalesce((select min(place) from ordered where is_wall), 9223372036854775807)
), locked as materialized (
    -- By key alone, and judged once locked: who says `queued` here invites a walk through all that is.
    select id, state, coalesce(expires_at <= statement_timestamp(), false) as is_expired
    from llmjobs_job
    where id = any (array(select job_id from chosen))
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
    -- The ids are said twice, so that the planner looks nowhere else.
    where e.state = 'queued' and j.id = e.id and j.id = any (array(select id from locked))
    returning j.*, c.place, c.flow_id, c.lane_id, c.cost, c.weight, c.tier_weight, c.tag, c.tier_tag
), attempts as (
    insert into llmjobs_attempt (job_id, number, pool_id, client_id, tier_id, worker_id, waited_s, charged, flow_weight, tier_weight)
    select id, attempt, pool_id, client_id, tier_id, worker_id,
        extract(epoch from statement_timestamp() - greatest(created_at, available_at)), cost, weight, tier_weight
    from started
    where state = 'running'
), expired_events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'done', '{"status": "expired"}'
    from started
    where state = 'expired'
), tried as materialized (
    select lane_id, flow_id, count(*) as jobs, max(lane_order) as last_order,
        (array_agg(next_order order by lane_order desc))[1] as next_order
    from chosen
    group by lane_id, flow_id
), left_locked as materialized (
    select c.lane_id, count(*) as jobs, min(c.lane_order) as head_order
    from (select job_id from chosen except select id from started) as x
    join chosen as c on c.job_id = x.job_id
    group by c.lane_id
), lanes_seen as materialized (
    -- The head moves to the first that was left, or to what comes after the last one taken.
    select t.lane_id, t.flow_id, t.jobs - coalesce(x.jobs, 0) as taken, coalesce(x.jobs, 0) as locked,
        coalesce(x.head_order, t.next_order, t.last_order + 1) as head_order,
        -- Not where jobs were left out: they still stand there.
        x.lane_id is null and t.next_order is null and cardinality(%(exclude)s::bigint[]) = 0 as is_empty
    from tried as t
    left join left_locked as x on x.lane_id = t.lane_id
    union all
    select lane_id, flow_id, 0, 0, head_order, true
    from heads
    where job_id is null and cardinality(%(exclude)s::bigint[]) = 0
), charge as materialized (
    select flow_id, tier_id, sum(cost) as cost, avg(cost) as mean_cost, count(*)::int as jobs, max(weight) as weight, max(tag) as tag,
        max(tier_tag) as tier_tag
    from started
    where state = 'running'
    group by flow_id, tier_id
), flows_after as materialized (
    select t.*, x.cost, x.jobs, x.mean_cost as new_mean_cost, t.vt + x.cost / x.weight as new_vt,
        t.running + x.jobs < coalesce(t.max_running, 2147483647) as new_open
    from charge as x
    cross join lateral (
        select ctid as row, *
        from llmjobs_flowturn
        where flow_id = x.flow_id
        order by turn desc
        limit 1
    ) as t
), lanes_after as materialized (
    select t.*, coalesce(x.vt, t.vt) as new_vt, h.new_head_at, a.*,
        case when cardinality(%(exclude)s::bigint[]) = 0 then coalesce(s.head_order, t.head_order) else t.head_order end as new_head_order,
        t.queued - coalesce(s.taken, 0)::int as new_queued,
        w.new_has_heads, w.new_has_heads and coalesce(x.is_open, true) as new_ready
    from (
        select flow_id, max(vt) as vt, bool_and(is_open) as is_open
        from (
            select flow_id, new_vt as vt, new_open as is_open from flows_after
            union all
            select flow_id, null, null from lanes_seen where taken > 0 or is_empty
        ) as f
        group by flow_id
    ) as x
    cross join lateral (select id from llmjobs_lane where flow_id = x.flow_id limit 10) as i
    cross join lateral (
        select ctid as row, *
        from llmjobs_laneturn
        where lane_id = i.id
        order by turn desc
        limit 1
    ) as t
    left join lanes_seen as s on s.lane_id = t.lane_id
    join all_tiers as o on o.tier_id = t.tier_id
    cross join lateral (select t.has_heads and not coalesce(s.is_empty, false) as new_has_heads) as w
    -- Age counts from when the lane was served last: else a client's long queue, where every job is old, would go before
    -- whatever others submit now. Who is served does not starve.
    cross join lateral (select case when s.taken > 0 then statement_timestamp() else t.head_at end as new_head_at) as h
    cross join lateral ({aged.sql}) as a
    where t.is_ready
), relevelled as materialized (
    select tier_id, new_level as level, min(new_vt) as vt, (array_agg(flow_id order by new_vt, flow_id))[1] as flow_id
    from lanes_after
    where new_ready and new_level <> level
    group by tier_id, new_level
), lanes_gone as (
    delete from llmjobs_laneturn where ctid = any (array(select row from lanes_after))
), lanes_new as (
    insert into llmjobs_laneturn (
        lane_id, turn, flow_id, pool_id, tier_id, priority, size, level, vt, head_at, ages_at, head_order, queued, has_heads, is_ready)
    select lane_id, turn + 1, flow_id, pool_id, tier_id, priority, size, new_level, new_vt, new_head_at, new_ages_at, new_head_order, new_queued,
        new_has_heads, new_ready
    from lanes_after
), flows_gone as (
    delete from llmjobs_flowturn where ctid = any (array(select row from flows_after))
), flows_new as (
    insert into llmjobs_flowturn (
        flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open, weight, max_running,
        learned, cost_ratio, output_tokens)
    select flow_id, turn + 1, pool_id, client_id, tier_id, new_vt, lifted, running + jobs,
        case when mean_cost = 0 then new_mean_cost else mean_cost + (new_mean_cost - mean_cost) / 8 end, new_open,
        weight, max_running, learned, cost_ratio, output_tokens
    from flows_after
), least_scanned as materialized (
    select distinct on (tier_id, level) tier_id, level, vt, flow_id from scanned order by tier_id, level, vt, flow_id
), tiers_after as materialized (
    select t.*, coalesce(x.cost, 0) as cost, coalesce(x.jobs, 0) as jobs, x.tag, x.tier_tag, f.vts as new_floors, f.flows as new_floor_flows
    from tiers as t
    left join (
        select tier_id, sum(cost) as cost, sum(jobs)::int as jobs, max(tag) as tag, max(tier_tag) as tier_tag
        from charge
        group by tier_id
    ) as x on x.tier_id = t.tier_id
    cross join lateral (
        -- A level that was not wholly looked at keeps its floor; an empty one is closed until a lane wakes there.
        select array_agg(least(o.vt, r.vt) order by k.level) as vts,
            array_agg(
                case when r.vt < o.vt then r.flow_id when r.vt = o.vt then least(r.flow_id, o.flow_id) else o.flow_id end
                order by k.level
            ) as flows
        from generate_series(0, 9) as k (level)
        left join least_scanned as s on s.tier_id = t.tier_id and s.level = k.level
        cross join lateral (
            select
                case when l.is_kept then t.floors[k.level + 1] else coalesce(s.vt, 'infinity') end as vt,
                case when l.is_kept then coalesce(t.floor_flows[k.level + 1], 0) else coalesce(s.flow_id, 0) end as flow_id
            from (
                select %(short_only)s and k.level %% 2 = 1 as is_kept
            ) as l
        ) as o
        left join relevelled as r on r.tier_id = t.tier_id and r.level = k.level
    ) as f
    where x.tier_id is not null or f.vts <> t.floors or f.flows <> t.floor_flows
), tiers_gone as (
    delete from llmjobs_tierturn where ctid = any (array(select row from tiers_after))
), tiers_new as (
    insert into llmjobs_tierturn (pool_id, tier_id, turn, vt, lifted, served_vt, flows_vt, running, mean_cost, floors, floor_flows)
    select pool_id, tier_id, turn + 1, vt + cost / weight, lifted,
        greatest(served_vt, tier_tag), greatest(flows_vt, tag), running + jobs,
        case when jobs = 0 then mean_cost when mean_cost = 0 then cost / jobs else mean_cost + (cost / jobs - mean_cost) / 8 end,
        new_floors, new_floor_flows
    from tiers_after
), summary as (
    select
        count(*) filter (where is_empty)::int as slept,
        array(select job_id from chosen except select id from started) as skipped,
        exists (select from ordered where is_wall and place <= (select jobs from quota)) as is_cut
    from lanes_seen
)
select y.slept, y.skipped, y.is_cut, s.id, s.public_id, s.state, s.attempt, s.epoch, s.failures, s.endpoint, s.client_id, s.size, s.max_attempts,
    s.timeout_s, s.cost as charged, s.est_input_tokens, s.est_output_tokens,
    extract(epoch from s.retry_until - statement_timestamp())::float8 as retry_left_s,
    extract(epoch from statement_timestamp() - greatest(s.created_at, s.available_at))::float8 as waited_s,
    r.body, r.max_cost_usd, coalesce(o.cost_usd, 0) as spent_usd, m.id as pool_id, m.name as model,
    coalesce(nullif(m.upstream_name, ''), m.name) as upstream_name, m.input_usd_per_mtok, m.output_usd_per_mtok,
    p.name as provider, p.base_url, p.api_key_env, c.name as client, t.name as tier
from summary as y
left join started as s on true
left join lateral (select body, max_cost_usd from llmjobs_jobrequest where job_id = s.id limit 1) as r on true
left join lateral (select cost_usd from llmjobs_jobresult where job_id = s.id limit 1) as o on true
left join llmjobs_model as m on m.id = s.pool_id
left join llmjobs_provider as p on p.id = m.provider_id
left join lateral (select name from llmjobs_client where id = s.client_id limit 1) as c on true
left join llmjobs_tier as t on t.id = s.tier_id
order by s.place
