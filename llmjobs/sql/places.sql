-- Called by: places.places.
-- Parameters: ids (array) of queued jobs, at most a page of them; unplaced: those among them that are not among the pool's
-- next starts; lease_s.
-- Literal: {most}, up to which jobs are counted one by one.
-- Returns: id; for an unplaced job own_ahead, its client's jobs in the pool before it, counted up to {most} and beyond that
-- from what the lanes say; the weights of client and tier; starts_per_s of the pool, what it runs by how long
-- the latest 100 attempts of ten minutes took (their number by their time would count the time when nobody asked, too), but
-- no more than the limits of pool and account give; opens_in_s, until these let the next one go; of a client with limits
-- of its own rpm, tpm, what its bucket holds of them (own_requests, own_tokens), and what the job would put in (tokens);
-- and what may block the job: stopped_by is the breaker that is open, of the account or the model, until an answer closes
-- it; a rate limit holds back until its time has come.
-- Index: job_ready, attempt_of_pool, worker_living, claimspause_open, flow_of_pool_and_client, lane_of_flow, the buckets' primary key.
select j.id, j.pool_id, j.client_id, c.weight, j.tier_id, k.weight as tier_weight,
    case when a.counted < {most} then a.counted else greatest(a.counted, r.ahead) end as own_ahead,
    case
        when s.starts_per_s is not null then least(
            s.starts_per_s, b.requests_rate, g.requests_rate,
            -- The account's tokens too, by what jobs of this pool use.
            b.tokens_rate / nullif(b.mean_tokens, 0), g.tokens_rate / nullif(b.mean_tokens, 0))
    end::float8 as starts_per_s,
    greatest(b.opens_at - n.at, g.opens_at - n.at, b.blocked_until - n.at, g.blocked_until - n.at, 0) as opens_in_s,
    l.rpm, l.tpm,
    least(greatest(u.requests_at - n.at, 0) * coalesce(u.requests_rate, l.rpm / 60.0), l.rpm) as own_requests,
    greatest(least(greatest(u.tokens_at - n.at, 0) * coalesce(u.tokens_rate, l.tpm / 60.0) + u.tokens_due, l.tpm), 0) as own_tokens,
    -- One that is larger than the whole limit goes once all is free.
    least((j.est_input_tokens::float8 + j.est_output_tokens) * coalesce(f.tokens_ratio, 1), l.tpm) as tokens,
    c.is_paused as is_client_paused,
    m.is_paused as is_model_paused,
    p.is_paused as is_provider_paused,
    coalesce(f.running >= coalesce(c.max_running, k.max_running), false) as is_client_full,
    coalesce(o.running >= m.max_running, false) or coalesce(g.running >= p.max_running, false) as is_model_full,
    coalesce(f.opens_at > n.at, false) as is_client_limited,
    coalesce(b.opens_at > n.at or g.opens_at > n.at, false)
        or coalesce(b.blocked_by = 'rate_limit' and b.blocked_until > n.at, false)
        or coalesce(g.blocked_by = 'rate_limit' and g.blocked_until > n.at, false) as is_limited,
    coalesce(nullif(g.blocked_by, 'rate_limit'), nullif(b.blocked_by, 'rate_limit')) as stopped_by,
    exists (select from llmjobs_claimspause where resumed_at is null) as are_claims_paused,
    not exists (
        select
        from llmjobs_worker as w
        where w.stopped_at is null and not w.is_draining
            and w.heartbeat_at > statement_timestamp() - make_interval(secs => %(lease_s)s)
            and (w.pools = '{}' or m.name = any (w.pools))
            and (w.tiers = '{}' or k.name = any (w.tiers))
    ) as has_no_worker
from llmjobs_job as j
join llmjobs_client as c on c.id = j.client_id
join llmjobs_tier as k on k.id = c.tier_id
join llmjobs_model as m on m.id = j.pool_id
join llmjobs_provider as p on p.id = m.provider_id
cross join lateral (select extract(epoch from statement_timestamp())::float8 as at) as n
cross join lateral (select coalesce(c.rpm, k.rpm) as rpm, coalesce(c.tpm, k.tpm) as tpm) as l
left join lateral (
    select blocked_by, blocked_until, opens_at, requests_rate, tokens_rate, mean_tokens
    from llmjobs_bucketturn
    where kind = 0 and of_id = j.pool_id
    order by turn desc
    limit 1
) as b on true
left join lateral (
    select blocked_by, blocked_until, opens_at, running, requests_rate, tokens_rate
    from llmjobs_bucketturn
    where kind = 1 and of_id = m.provider_id
    order by turn desc
    limit 1
) as g on true
left join lateral (
    select requests_at, tokens_at, tokens_due, requests_rate, tokens_rate
    from llmjobs_bucketturn
    where kind = 2 and of_id = j.client_id and coalesce(l.rpm, l.tpm) is not null
    order by turn desc
    limit 1
) as u on true
left join lateral (
    select t.flow_id, t.running, t.opens_at, t.tokens_ratio
    from llmjobs_flow as x
    join llmjobs_flowturn as t on t.flow_id = x.id
    where x.pool_id = j.pool_id and x.client_id = j.client_id
    order by t.turn desc
    limit 1
) as f on true
left join lateral (
    select sum(t.running) as running
    from llmjobs_tier as y
    cross join lateral (
        select running from llmjobs_tierturn where pool_id = j.pool_id and tier_id = y.id order by turn desc limit 1
    ) as t
) as o on true
left join lateral (
    select coalesce(
        greatest(o.running, 1) / avg(greatest(extract(epoch from a.ended_at - a.claimed_at), 0.001)),
        count(*) / greatest(extract(epoch from statement_timestamp() - min(a.claimed_at)), 1)
    ) as starts_per_s
    from (
        select claimed_at, ended_at
        from llmjobs_attempt
        where pool_id = j.pool_id and claimed_at > statement_timestamp() - make_interval(mins => 10)
        order by claimed_at desc
        limit 100
    ) as a
) as s on true
left join lateral (
    select count(*) as counted
    from (
        select
        from llmjobs_job as b
        where j.id = any (%(unplaced)s::bigint[]) and b.pool_id = j.pool_id and b.client_id = j.client_id and b.state = 'queued'
            and (b.priority < j.priority or (b.priority = j.priority and b.lane_order < j.lane_order))
        limit {most}
    ) as b
) as a on true
left join lateral (
    -- Beyond that: whole lanes, and of its own the part that its place between the first and the last says.
    select sum(
        case
            when i.priority < j.priority then t.queued
            else t.queued * least(greatest((j.lane_order - t.head_order)::float8 / greatest(e.lane_order - t.head_order, 1), 0), 1)
        end
    )::bigint as ahead
    from llmjobs_lane as i
    cross join lateral (
        select queued, head_order from llmjobs_laneturn where lane_id = i.id and queued > 0 order by turn desc limit 1
    ) as t
    cross join lateral (
        select lane_order
        from llmjobs_job
        where pool_id = j.pool_id and client_id = j.client_id and priority = i.priority and size = i.size and state = 'queued'
        order by lane_order desc
        limit 1
    ) as e
    where a.counted >= {most} and i.flow_id = f.flow_id and i.priority <= j.priority
) as r on true
where j.id = any (%(ids)s::bigint[])
