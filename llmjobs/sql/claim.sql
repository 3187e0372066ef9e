-- Called by: queue.claim, after the fold, under the turnstile.
-- Parameters: pool; count: the most jobs claimed; worker (uuid); tiers: ids that this worker serves, null for all;
-- short_only; exclude: jobs that the claims before this one found locked; is_look: false.
-- Literal: {n}, at least count, one of a few sizes.
-- Parameters of `gate`, which see.
-- Returns: a row a job with all that its attempt needs, or one row of nulls; in each, what to know of the claim itself:
-- slept (lanes put to sleep), closed (flows whose client's limits are used up), skipped (jobs that others hold locked), is_cut
-- (a wall ended it: there is more), clock (the database's, Unix seconds), opens_in_s (when the pool's limits let it go on), is_account_full (its account runs all that it may),
-- wake_in_s (when the first of those flows opens).
-- The limits of pool, account and client are reserved together, for the moment that a call is to be sent (send_in_s): one
-- after the other in the fair order, until one would come too late. Nothing passes a job that does not fit yet, so that
-- large ones do not starve; it costs no throughput, since what drains meanwhile is its own.
-- What is claimed, in the order of `fair_order`, is charged at once with its expected cost; settle corrects that.
-- Locks: the claimed jobs, SKIP LOCKED, in the order of their ids.
with {gate.sql}, {fair_order.sql}, quota as materialized (
    select least(
        %(count)s::int, coalesce(p.max_running, 2147483647) - (select sum(running) from all_tiers), g.slots, g.room,
        case when g.is_probe then 1 end -- one call tries whether a breaker may close
    ) as jobs
    from pool as p
    cross join gate as g
), chosen as materialized (
    select o.*
    from (select *, sum(tokens) over (order by place) as tokens_sum from ordered) as o
    cross join gate as g
    where o.place <= (select jobs from quota)
        and o.place < coalesce((select min(place) from ordered where is_wall), 9223372036854775807)
        -- Not what is sure to come too late.
        and coalesce(g.pool_tokens_at + (o.tokens_sum - g.pool_tokens_burst) / g.pool_tokens_rate <= g.clock + %(ahead_s)s, true)
        and coalesce(g.account_tokens_at + (o.tokens_sum - g.account_tokens_burst) / g.account_tokens_rate <= g.clock + %(ahead_s)s, true)
), locked as materialized (
    -- By key alone, and judged once locked: who says `queued` here invites a walk through all that is.
    select id, state, pool_id, priority, size, coalesce(attempt = 0 and expires_at <= statement_timestamp(), false) as is_expired
    from llmjobs_job
    where id = any (array(select job_id from chosen))
    order by id
    for update skip locked
), admitted as materialized (
    select array_agg(c.job_id order by c.place) as ids, array_agg(c.place order by c.place) as places,
        array_agg(c.tokens order by c.place) as tokens
    from locked as e
    join chosen as c on c.job_id = e.id
    -- In its lane still: an operator may have given it another priority or model since it was seen there.
    where e.state = 'queued' and e.pool_id = %(pool)s and e.priority = c.priority and e.size = c.size and not e.is_expired
), paced as materialized (
    -- When each may be sent: not before all buckets have room for it, and then all of them take it in at that moment.
    with recursive steps as (
        select 0 as nth, null::float8 as sent_at, null::float8 as slack_s, pool_requests_at, pool_tokens_at, account_requests_at, account_tokens_at
        from gate
        union all
        select p.nth + 1, s.at,
            -- Until it would have drained as far as to this call, no harm is done if it leaves late.
            least(greatest(p.pool_requests_at, s.at + g.pool_slack_s), greatest(p.account_requests_at, s.at + g.account_slack_s)) - s.at,
            greatest(p.pool_requests_at, s.at + g.pool_slack_s) + 1 / g.pool_requests_rate,
            greatest(p.pool_tokens_at, s.at) + a.tokens[p.nth + 1] / g.pool_tokens_rate,
            greatest(p.account_requests_at, s.at + g.account_slack_s) + 1 / g.account_requests_rate,
            greatest(p.account_tokens_at, s.at) + a.tokens[p.nth + 1] / g.account_tokens_rate
        from steps as p
        cross join gate as g
        cross join admitted as a
        cross join lateral (select greatest(
            g.clock,
            p.pool_requests_at + (1 - g.pool_requests_burst) / g.pool_requests_rate,
            p.pool_tokens_at + (a.tokens[p.nth + 1] - g.pool_tokens_burst) / g.pool_tokens_rate,
            p.account_requests_at + (1 - g.account_requests_burst) / g.account_requests_rate,
            p.account_tokens_at + (a.tokens[p.nth + 1] - g.account_tokens_burst) / g.account_tokens_rate
        ) as at) as s
        where p.nth < cardinality(a.ids) and s.at <= g.clock + %(ahead_s)s
    )
    select * from steps
), slots as materialized (
    select a.ids[p.nth] as job_id, p.sent_at, p.slack_s from paced as p cross join admitted as a where p.nth > 0
), reached as materialized (
    -- Up to the first that comes too late.
    select *
    from chosen
    where place < coalesce((select a.places[(select max(nth) from paced) + 1] from admitted as a), 9223372036854775807)
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
    join reached as c on c.job_id = e.id
    left join slots as s on s.job_id = e.id
    -- The ids are said twice, so that the planner looks nowhere else.
    where e.state = 'queued' and e.pool_id = %(pool)s and e.priority = c.priority and e.size = c.size
        and j.id = e.id and j.id = any (array(select id from locked))
    returning j.*, c.place, c.flow_id, c.lane_id, c.cost, c.weight, c.tier_weight, c.tag, c.tier_tag, c.tokens, s.sent_at, s.slack_s
), attempts as (
    insert into llmjobs_attempt (
        job_id, number, pool_id, client_id, tier_id, worker_id, waited_s, charged, flow_weight, tier_weight, reserved, is_retry,
        slot_s)
    select id, attempt, pool_id, client_id, tier_id, worker_id,
        extract(epoch from statement_timestamp() - greatest(created_at, available_at)), cost, weight, tier_weight,
        tokens, failures > 0, sent_at - extract(epoch from statement_timestamp())
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
    from reached
    group by lane_id, flow_id
), left_locked as materialized (
    select c.lane_id, count(*) as jobs, min(c.lane_order) as head_order
    from (select job_id from reached except select id from started) as x
    join reached as c on c.job_id = x.job_id
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
        max(tier_tag) as tier_tag, sum(tokens) as tokens
    from started
    where state = 'running'
    group by flow_id, tier_id
), limited as materialized (
    -- The flows met here whose clients have limits, as they stand after this claim, and when what comes next has room.
    select f.flow_id, f.client_id, f.rpm, f.tpm, f.jobs, n.requests_at, n.tokens_at, o.opens_at
    from (
        select t.flow_id, t.client_id, t.rpm, t.tpm, t.own_requests_at, t.own_tokens_at,
            (array_agg(least(t.tokens, t.tpm) order by t.nth) filter (where t.nth > coalesce(x.jobs, 0)))[1] as next_tokens,
            coalesce(max(x.jobs), 0) as jobs, coalesce(max(x.tokens), 0) as tokens
        from tagged as t
        left join charge as x on x.flow_id = t.flow_id
        where t.rpm is not null or t.tpm is not null
        group by t.flow_id, t.client_id, t.rpm, t.tpm, t.own_requests_at, t.own_tokens_at
    ) as f
    cross join gate as g
    cross join lateral (select
        f.own_requests_at + coalesce(f.jobs * 60.0 / f.rpm, 0) as requests_at,
        f.own_tokens_at + coalesce(f.tokens * 60 / f.tpm, 0) as tokens_at
    ) as n
    cross join lateral (
        -- The bucket has room for one more once it drains for a minute in less than what is in it.
        select nullif(greatest(
            case when n.requests_at + 60.0 / f.rpm > g.clock + 60 then n.requests_at + 60.0 / f.rpm - 60 end,
            case when n.tokens_at + f.next_tokens * 60 / f.tpm > g.clock + 60 then n.tokens_at + f.next_tokens * 60 / f.tpm - 60 end,
            0
        ), 0) as opens_at
    ) as o
), client_buckets as materialized (
    select b.row, l.client_id, coalesce(b.turn, -1) as turn, l.rpm, l.tpm, l.requests_at, l.tokens_at
    from limited as l
    left join lateral (
        select ctid as row, turn from llmjobs_bucketturn where kind = 2 and of_id = l.client_id order by turn desc limit 1
    ) as b on true
    where l.jobs > 0 or l.opens_at is not null
), client_buckets_gone as (
    delete from llmjobs_bucketturn where ctid = any (array(select row from client_buckets))
), client_buckets_new as (
    insert into llmjobs_bucketturn (kind, of_id, turn, requests_at, tokens_at, requests_rate, tokens_rate)
    select 2, client_id, turn + 1, requests_at, tokens_at, rpm / 60.0, tpm / 60.0 from client_buckets
), flows_after as materialized (
    select t.*, x.cost, x.jobs, x.mean_cost as new_mean_cost, t.vt + coalesce(x.cost / x.weight, 0) as new_vt, x.opens_at as new_opens_at,
        t.running + x.jobs < coalesce(t.max_running, 2147483647) and x.opens_at is null as new_open
    from (
        select coalesce(c.flow_id, l.flow_id) as flow_id, coalesce(c.cost, 0) as cost, coalesce(c.jobs, 0) as jobs, c.mean_cost, c.weight, l.opens_at
        from charge as c
        full join limited as l on l.flow_id = c.flow_id
        where c.flow_id is not null or l.opens_at is not null
    ) as x
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
        flow_id, turn, pool_id, client_id, tier_id, vt, lifted, running, mean_cost, is_open, opens_at, weight, max_running, rpm, tpm,
        learned, cost_ratio, output_tokens, tokens_ratio, error_var)
    select flow_id, turn + 1, pool_id, client_id, tier_id, new_vt, lifted, running + jobs,
        case when jobs = 0 then mean_cost when mean_cost = 0 then new_mean_cost else mean_cost + (new_mean_cost - mean_cost) / 8 end,
        new_open, new_opens_at, weight, max_running, rpm, tpm, learned, cost_ratio, output_tokens, tokens_ratio, error_var
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
), buckets_filled as materialized (
    select b.*, %(short_only)s or %(tiers)s::bigint[] is not null as is_part, s.jobs, s.left_queue, s.tokens as more_tokens, s.largest as new_largest,
        n.requests_at as new_requests_at, n.tokens_at as new_tokens_at,
        n.requests_at + (1 - b.requests_burst) / b.requests_rate as requests_next_at,
        -- Of the first that waits; where nobody does it is null.
        n.tokens_at + (w.tokens - b.tokens_burst) / b.tokens_rate as tokens_next_at
    from buckets as b
    cross join (select * from paced order by nth desc limit 1) as f
    cross join (
        select count(*) filter (where state = 'running')::int as jobs, count(*)::int as left_queue,
            coalesce(sum(tokens) filter (where state = 'running'), 0) as tokens, coalesce(max(tokens) filter (where state = 'running'), 0) as largest
        from started
    ) as s
    cross join (
        select min(tokens) as tokens
        from ordered
        where place = (
            select min(place) from ordered where job_id is not null and place > coalesce((select max(place) from reached), 0)
        )
    ) as w
    cross join lateral (select
        coalesce(case b.kind when 0 then f.pool_requests_at else f.account_requests_at end, b.requests_from) as requests_at,
        coalesce(case b.kind when 0 then f.pool_tokens_at else f.account_tokens_at end, b.tokens_from) as tokens_at
    ) as n
    where (select is_open from gate) and exists (select from pool)
), buckets_after as materialized (
    select b.*,
        -- Others may want less than the one that waits here: in other pools of the account, and in what a part does not see.
        case when o.next_at > b.clock + %(ahead_s)s / 2 then least(o.next_at - %(ahead_s)s / 2, b.clock + 60) end as new_opens_at,
        -- Somebody takes it within two seconds of its time, or nobody has a slot for it. Of what models share, a pool whose
        -- next call has found no room for a while has the next: until then others that need less may pass.
        case
            when b.kind = 0 and b.is_part then b.held_until
            when b.kind = 0 then case when b.tokens_next_at > b.clock + %(ahead_s)s then b.tokens_next_at + 2 end
            when o.is_next then b.tokens_next_at + 2
            when b.held_by <> %(pool)s then b.held_until
        end as new_held_until,
        case when b.kind = 0 then null when o.is_next then %(pool)s when b.held_by <> %(pool)s then b.held_by end as new_held_by,
        case
            when b.kind = 1 then null
            when b.is_part then b.waits_since
            when b.jobs = 0 and o.all_tokens_next_at > b.clock + %(ahead_s)s then coalesce(b.waits_since, b.clock)
        end as new_waits_since
    from (
        select *, max(requests_next_at) over () as all_requests_next_at, max(tokens_next_at) over () as all_tokens_next_at,
            max(waits_since) over () as pool_waits_since
        from buckets_filled
    ) as b
    cross join lateral (select
        b.all_tokens_next_at,
        case
            when b.kind = 1 then b.requests_next_at
            when b.is_part then b.all_requests_next_at
            else greatest(b.all_requests_next_at, b.all_tokens_next_at)
        end as next_at,
        coalesce(b.tokens_next_at > b.clock + %(ahead_s)s and b.jobs = 0 and b.pool_waits_since < b.clock - 5, false) as is_next
    ) as o
), buckets_written as materialized (
    select *
    from buckets_after
    where left_queue > 0 or blocked_by = 'rate_limit' or requests_left is not null or tokens_left is not null
        or new_opens_at is distinct from opens_at or new_held_until is distinct from held_until
        or new_waits_since is distinct from waits_since
), buckets_gone as (
    delete from llmjobs_bucketturn where ctid = any (array(select row from buckets_written))
), buckets_new as (
    insert into llmjobs_bucketturn (
        kind, of_id, turn, requests_at, tokens_at, requests_rate, tokens_rate, moved_at, opens_at, held_until, held_by,
        waits_since, requests, tokens, refusals, lies, queued, running,
        jitter_s, largest, learned, mean_tokens, error_var, requests_limit, tokens_limit, told_at, rate_factor, factor_at,
        blocked_by, blocked_until, block_s, strikes, downs, struck_at)
    select kind, of_id, turn + 1, new_requests_at,
        -- A bucket that grows to hold a larger call is not emptier for it.
        new_tokens_at + coalesce(greatest(least(new_largest, 0.1 * tokens_most) - tokens_burst, 0) / tokens_rate, 0),
        requests_rate, tokens_rate, clock, new_opens_at, new_held_until, new_held_by, new_waits_since, requests + jobs,
        tokens + more_tokens, refusals, lies, queued - left_queue, running + jobs, late_s, greatest(largest_now, new_largest), learned, mean_tokens, error_var,
        requests_limit, tokens_limit, told_at, rate_factor, factor_at,
        case when blocked_by <> 'rate_limit' then blocked_by end,
        -- A breaker that was open: the next try, should this one be lost.
        case when blocked_by <> 'rate_limit' then case when jobs > 0 then clock + block_s else blocked_until end end,
        block_s, strikes, downs, struck_at
    from buckets_written
), summary as (
    select
        (select count(*) from limited where opens_at is not null)::int as closed,
        extract(epoch from statement_timestamp())::float8 as clock,  -- the gate's, which a pool that was just deleted has not
        (select coalesce(room <= 0, false) from gate) as is_account_full,
        (
            select greatest(max(new_opens_at) - max(clock), max(b.blocked_until) - max(clock))
            from (select clock, blocked_until from gate) as b
            left join (select max(new_opens_at) as new_opens_at from buckets_after) as o on true
        )::float8 as opens_in_s,
        (select min(opens_at) - (select clock from gate) from limited)::float8 as wake_in_s,
        count(*) filter (where is_empty)::int as slept,
        array(select job_id from reached except select id from started) as skipped,
        exists (select from ordered where is_wall and place <= (select jobs from quota)) as is_cut
    from lanes_seen
)
select y.slept, y.closed, y.skipped, y.is_cut, y.clock, y.is_account_full, y.opens_in_s, y.wake_in_s, s.id, s.public_id,
    s.state, s.attempt, s.epoch, s.failures, s.endpoint, s.client_id, s.size, s.has_handler, s.keeps_partial, s.max_attempts,
    s.timeout_s, s.cost as charged, (s.sent_at - y.clock)::float8 as send_in_s, y.clock as claimed_at,
    s.slack_s::float8 as slack_s, ((select jitter_s from gate) + s.slack_s)::float8 as late_max_s,
    (select rpm from gate)::float8 as rpm, (select tokens_most from gate)::float8 as tpm, s.est_input_tokens, s.est_output_tokens,
    extract(epoch from s.retry_until - statement_timestamp())::float8 as retry_left_s,
    extract(epoch from statement_timestamp() - greatest(s.created_at, s.available_at))::float8 as waited_s,
    r.body, r.max_cost_usd, r.traceparent, coalesce(o.cost_usd, 0) as spent_usd, m.id as pool_id, m.name as model,
    coalesce(nullif(m.upstream_name, ''), m.name) as upstream_name, m.input_usd_per_mtok, m.output_usd_per_mtok,
    p.name as provider, p.base_url, p.api_key_env, p.has_background, b.resume_id, e.span_before, c.name as client, t.name as tier
from summary as y
left join started as s on true
left join lateral (select body, max_cost_usd, traceparent from llmjobs_jobrequest where job_id = s.id limit 1) as r on true
left join lateral (select cost_usd from llmjobs_jobresult where job_id = s.id limit 1) as o on true
left join llmjobs_model as m on m.id = s.pool_id
left join llmjobs_provider as p on p.id = m.provider_id
-- A response that goes on at the provider, though nobody here waits for it any more.
left join lateral (
    select provider_response_id as resume_id
    from llmjobs_attempt
    where job_id = s.id and number < s.attempt and pool_id = s.pool_id and provider_response_id is not null
        and outcome in ('lost', 'released', 'unknown', 'rejected', 'not_sent', 'provider_refused')
    order by number desc
    limit 1
) as b on p.has_background and s.endpoint = '/v1/responses' and s.attempt > 1
-- What a trace shows as the attempt before.
left join lateral (
    select span_id as span_before from llmjobs_attempt where job_id = s.id and number < s.attempt order by number desc limit 1
) as e on s.attempt > 1 and r.traceparent is not null
left join lateral (select name from llmjobs_client where id = s.client_id limit 1) as c on true
left join llmjobs_tier as t on t.id = s.tier_id
order by s.place
