-- Called by: queue.reclaim, a duty of every worker.
-- Parameters: lease_s; grace_s, beyond a job's own timeout_s; backoff_base_s, backoff_cap_s. Literal: {rows}, at most.
-- Returns: id, client_id, seq, state of the jobs taken back, and what attempt_log.End has of their attempts.
-- Takes back what is held by a worker whose heartbeat is older than a lease, or by none, and what runs longer than its
-- timeout allows whatever its worker's heartbeat says. A lost lease is a failure: a job that kills its workers ends dead.
-- After a start of Postgres nobody reclaims for the length of a lease: an outage must not buy every running call again.
-- Settled from the log, without another call: an answer whose text was all there (finish_reason in its last delta), and
-- one that was broken off, of a job that keeps what had come. A response that goes on at the provider is picked up there.
-- What was streamed is priced: est. input and the tokens that came. Where nothing came the charge stands, since nobody
-- knows what the lost call used. Backoff: uniform(0, min(cap, base · 2^failures)).
-- Locks: the jobs, SKIP LOCKED, in the order of their ids. Index: job_running, worker's primary key, event_of_job.
with candidates as materialized (
    select j.id, j.attempt, j.worker_id
    from llmjobs_job as j
    left join llmjobs_worker as w on w.id = j.worker_id
    where j.state = 'running'
        and pg_postmaster_start_time() < statement_timestamp() - make_interval(secs => %(lease_s)s)
        and (
            w.id is null
            or w.heartbeat_at < statement_timestamp() - make_interval(secs => %(lease_s)s)
            or j.started_at < statement_timestamp() - make_interval(secs => j.timeout_s + %(grace_s)s)
        )
    limit {rows}
), lost as materialized (
    -- The lease that was judged, and no other: a job that somebody else took back and claimed again meanwhile is seen
    -- here as it is now, with the worker of before beside it.
    select j.id, j.pool_id, j.endpoint, j.attempt, j.epoch, j.failures, j.max_attempts, j.retry_until, j.cancel_requested_at,
        j.keeps_partial, j.est_input_tokens
    from candidates as c
    join llmjobs_job as j on j.id = c.id
    where j.state = 'running' and j.attempt = c.attempt and j.worker_id = c.worker_id
    order by j.id
    for no key update of j skip locked
), told as materialized (
    -- What the log has of the attempt that was lost.
    select l.*, e.output_text, e.finish_reason, m.upstream_name, m.input_usd_per_mtok, m.output_usd_per_mtok,
        p.has_background and a.provider_response_id is not null as goes_on,
        case when e.output_text <> '' or e.finish_reason is not null then l.est_input_tokens end as input_tokens,
        case
            when e.output_text <> '' or e.finish_reason is not null
            then coalesce(e.output_tokens, ceil(length(e.output_text) / 4.0)::int)
        end as output_tokens
    from lost as l
    cross join lateral (
        select coalesce(string_agg(data ->> 'text', '' order by seq), '') as output_text,
            max(data ->> 'finish_reason') as finish_reason, max((data ->> 'output_tokens')::int) as output_tokens
        from llmjobs_jobevent
        where job_id = l.id and type = 'delta' and seq > l.epoch::bigint << 20 and seq < (l.epoch + 1)::bigint << 20
    ) as e
    left join lateral (
        select provider_response_id from llmjobs_attempt where job_id = l.id and number = l.attempt limit 1
    ) as a on true
    cross join lateral (
        select coalesce(nullif(upstream_name, ''), name) as upstream_name, provider_id, input_usd_per_mtok, output_usd_per_mtok
        from llmjobs_model
        where id = l.pool_id
        limit 1
    ) as m
    cross join lateral (select has_background from llmjobs_provider where id = m.provider_id limit 1) as p
), priced as materialized (
    select t.*,
        -- As estimates.cost_usd and weighted_tokens.
        case
            when coalesce(t.input_usd_per_mtok, t.output_usd_per_mtok) is not null
            then round((t.input_tokens * coalesce(t.input_usd_per_mtok, 0) + t.output_tokens * coalesce(t.output_usd_per_mtok, 0))
                / 1000000, 8)
        end as cost_usd,
        t.input_tokens + t.output_tokens * case
            when t.input_usd_per_mtok > 0 and t.output_usd_per_mtok is not null
            then (t.output_usd_per_mtok / t.input_usd_per_mtok)::float8
            else 1
        end as cost,
        statement_timestamp()
            + make_interval(secs => random() * least(%(backoff_cap_s)s, %(backoff_base_s)s * power(2, least(t.failures, 30))))
            as again_at
    from told as t
), decided as materialized (
    select p.*,
        case
            when p.finish_reason is not null then 'completed'
            when p.cancel_requested_at is not null then 'cancelled'
            when p.keeps_partial and p.output_text <> '' and not p.goes_on then 'completed'
            when p.failures + 1 >= p.max_attempts or p.again_at > p.retry_until or s.is_spent then 'dead'
            else 'scheduled'
        end as next,
        case
            when p.finish_reason is not null then 'completed'
            when p.cancel_requested_at is null and p.keeps_partial and p.output_text <> '' and not p.goes_on then 'interrupted'
            else 'lost'
        end as outcome,
        case
            when p.finish_reason is not null
            then 'Its worker was lost after the whole text was in the log: settled from there, without another call.'
            when p.cancel_requested_at is not null then 'Lost lease; a cancel was asked for.'
            when p.keeps_partial and p.output_text <> '' and not p.goes_on
            then 'Lost lease; what had come is the answer, as on_interrupt asks.'
            when p.failures + 1 >= p.max_attempts
            then 'Lost lease, failure ' || p.failures + 1 || ' of ' || p.max_attempts || ': dead-lettered.'
            when p.again_at > p.retry_until then 'Lost lease; the time for retries (retry_for_s) is over: dead-lettered.'
            when s.is_spent then 'Lost lease; lost attempts cost as much as max_cost_usd allows: dead-lettered.'
            when p.goes_on then 'Lost lease: the response goes on at the provider, and is picked up there after a backoff.'
            else 'Lost lease, failure ' || p.failures + 1 || ' of ' || p.max_attempts || ': tried again after a backoff.'
        end as decision
    from priced as p
    cross join lateral (
        select coalesce(o.cost_usd, 0) + case when p.goes_on then 0 else coalesce(p.cost_usd, 0) end >= r.max_cost_usd as is_spent
        from (select) as one
        left join lateral (select max_cost_usd from llmjobs_jobrequest where job_id = p.id limit 1) as r on true
        left join lateral (select cost_usd from llmjobs_jobresult where job_id = p.id limit 1) as o on true
    ) as s
), moved as materialized (
    update llmjobs_job as j
    set state = d.next,
        epoch = j.epoch + 1,
        failures = j.failures + case when d.outcome = 'lost' then 1 else 0 end,
        worker_id = null,
        available_at = case when d.next = 'scheduled' then d.again_at else j.available_at end,
        finished_at = case when d.next = 'scheduled' then null else statement_timestamp() end
    from decided as d
    where j.id = d.id
    returning j.id, j.public_id, j.client_id, j.priority, j.size, j.attempt as number, j.failures,
        j.epoch as new_epoch, j.available_at, d.pool_id, d.endpoint, d.next, d.outcome, d.decision, d.output_text,
        d.finish_reason, d.upstream_name,
        -- What is picked up is paid by who picks it up.
        case when d.goes_on and d.next = 'scheduled' then 0 else d.input_tokens end as input_tokens,
        case when d.goes_on and d.next = 'scheduled' then 0 else d.output_tokens end as output_tokens,
        case when d.goes_on and d.next = 'scheduled' then 0 else d.cost end as cost,
        case when d.goes_on and d.next = 'scheduled' then 0 else d.cost_usd end as cost_usd
), closed as (
    update llmjobs_attempt as a
    set ended_at = statement_timestamp(), outcome = m.outcome, error_code = 'lease_lost',
        error_message = 'Its worker stopped sending heartbeats, or held it longer than its timeout.',
        input_tokens = m.input_tokens, output_tokens = m.output_tokens, cost = coalesce(m.cost, a.charged), cost_usd = m.cost_usd,
        decision = m.decision
    from moved as m
    where a.job_id = m.id and a.number = m.number
    returning a.job_id, a.tier_id, a.waited_s, a.worker_id, extract(epoch from a.ended_at - a.claimed_at)::float8 as ran_s,
        (a.cost - a.charged) / a.flow_weight as flow_vt, (a.cost - a.charged) / a.tier_weight as tier_vt
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, running, tier_id, flow_vt, tier_vt)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, -count(*), c.tier_id, sum(c.flow_vt), sum(c.tier_vt)
    from moved as m
    join closed as c on c.job_id = m.id
    join llmjobs_model as p on p.id = m.pool_id
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size, c.tier_id
), results as (
    -- What was streamed before the break stays readable.
    insert into llmjobs_jobresult as r (
        job_id, output, output_text, usage, cost_usd, error_code, error_message, error_class, error_attempt)
    select m.id, a.output, m.output_text, a.usage, m.cost_usd, e.code,
        case when e.code is not null then 'Its worker stopped sending heartbeats, or held it longer than its timeout.' end,
        case when e.code is not null then 'unknown' end,
        case when e.code is not null then m.number end
    from moved as m
    cross join lateral (select case when m.next <> 'completed' then 'lease_lost' end as code) as e
    left join lateral ({log_answer.sql}) as a on m.next = 'completed'
    on conflict (job_id) do update
    set output = excluded.output, output_text = excluded.output_text, usage = coalesce(excluded.usage, r.usage),
        cost_usd = case when excluded.cost_usd is null then r.cost_usd else coalesce(r.cost_usd, 0) + excluded.cost_usd end,
        error_code = excluded.error_code, error_message = excluded.error_message, error_class = excluded.error_class,
        provider_status = null, error_attempt = excluded.error_attempt
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, new_epoch::bigint << 20,
        case when next = 'scheduled' then 'status' else 'done' end,
        jsonb_strip_nulls(jsonb_build_object(
            'status', next,
            'attempt', case when next = 'scheduled' then number end,
            'available_at', case when next = 'scheduled' then available_at end))
    from moved
)
select m.id, m.client_id, m.new_epoch::bigint << 20 as seq, m.next as state,
    m.public_id, m.number, coalesce(u.name, '-'), coalesce(t.name, '-'), coalesce(p.name, '-'), m.outcome, 'lease_lost' as error,
    coalesce(a.waited_s, 0), coalesce(a.ran_s, 0), m.input_tokens, m.output_tokens, m.cost_usd, null as first_token_s,
    case when m.next = 'scheduled' then extract(epoch from m.available_at - statement_timestamp())::float8 else 0 end as delay_s,
    m.failures, null as provider_status, null as provider_request_id, a.worker_id, r.traceparent
from moved as m
left join closed as a on a.job_id = m.id
left join lateral (select name from llmjobs_client where id = m.client_id limit 1) as u on true
left join lateral (select name from llmjobs_tier where id = a.tier_id limit 1) as t on true
left join lateral (select name from llmjobs_model where id = m.pool_id limit 1) as p on true
left join lateral (select traceparent from llmjobs_jobrequest where job_id = m.id limit 1) as r on true
