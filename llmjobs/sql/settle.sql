-- Called by: queue.settle, for a batch of attempts that ended, after their last events and in the same transaction.
-- Parameters: settlements: a JSON array of outcomes.Settlement with the lease; worker (uuid).
-- Returns: id, client_id, seq, state of each job that was still held; who is missing has lost its lease. State `busy`: its
-- row is locked by somebody else; nothing was written, and it is to be settled again.
-- Locks: the jobs, in the order of their ids, SKIP LOCKED: a host's transaction that cancelled one of them may stay open for
-- minutes, and all that this worker runs must not wait for it. No lock that a claim wants: the correction of the charge,
-- and the running count, go to the inbox, and the next claim folds them in.
-- A way back to the queue with a cancel asked for ends in `cancelled`; an answer that had finished wins over a cancel.
with ended as materialized (
    select *
    from json_to_recordset(%(settlements)s::json) as d (
        job_id bigint, attempt int, state text, outcome text, is_failure boolean, delay_s float8, decision text,
        error_code text, error_message text, error_class text, provider_status smallint, provider_request_id text,
        input_tokens int, output_tokens int, cost float8, cost_usd numeric, usage jsonb, output text, output_text text,
        sent_ago_s float8, first_token_ago_s float8, span_id text)
), locked as materialized (
    -- By key alone, and judged once locked: an index of what runs is full of rows that no snapshot let go.
    select id, attempt, state, worker_id, cancel_requested_at
    from llmjobs_job
    where id = any (array(select job_id from ended))
    order by id
    for no key update skip locked
), busy as materialized (
    select d.job_id
    from ended as d
    cross join lateral (select attempt, state, worker_id from llmjobs_job where id = d.job_id limit 1) as j
    where j.state = 'running' and j.attempt = d.attempt and j.worker_id = %(worker)s::uuid
        and d.job_id not in (select id from locked)
), decided as materialized (
    select d.*,
        case
            when h.cancel_requested_at is not null and (d.state in ('scheduled', 'queued') or d.outcome = 'interrupted')
            then 'cancelled'
            else d.state
        end as next
    from locked as h
    join ended as d on d.job_id = h.id and d.attempt = h.attempt
    where h.state = 'running' and h.worker_id = %(worker)s::uuid
), moved as materialized (
    update llmjobs_job as j
    set state = d.next,
        epoch = j.epoch + 1,
        failures = j.failures + case when d.is_failure then 1 else 0 end,
        worker_id = null,
        available_at = case when d.next = 'scheduled' then statement_timestamp() + make_interval(secs => d.delay_s) else j.available_at end,
        finished_at = case when d.next in ('scheduled', 'queued') then null else statement_timestamp() end
    from decided as d
    where j.id = d.job_id
    returning j.id, j.pool_id, j.client_id, j.priority, j.size, j.lane_order, j.epoch, j.available_at, j.est_cost, j.est_input_tokens,
        j.est_output_tokens, d.*
), closed as (
    update llmjobs_attempt as a
    set ended_at = statement_timestamp(), outcome = m.outcome, decision = m.decision, error_code = m.error_code,
        error_message = m.error_message, provider_status = m.provider_status, provider_request_id = m.provider_request_id,
        input_tokens = m.input_tokens, output_tokens = m.output_tokens, cost = coalesce(m.cost, a.charged), cost_usd = m.cost_usd,
        sent_at = statement_timestamp() - make_interval(secs => m.sent_ago_s),
        first_token_at = statement_timestamp() - make_interval(secs => m.first_token_ago_s), span_id = m.span_id
    from moved as m
    cross join lateral (select token_policy from llmjobs_model where id = m.pool_id limit 1) as l
    where a.job_id = m.id and a.number = m.attempt
    returning a.job_id, a.tier_id, a.cost as used, a.output_tokens as said,
        m.outcome = 'completed' and m.cost is not null and m.output_tokens is not null as is_lesson,
        a.input_tokens::float8 + a.output_tokens as tokens, a.reserved, extract(epoch from a.claimed_at)::float8 as claimed_at,
        m.outcome in ('completed', 'deterministic') or (m.outcome = 'rejected' and m.provider_status = 429) as is_answered,
        -- Nothing is given back for a call that was sent a window ago: the provider has forgotten it.
        case
            when m.sent_ago_s is null then -a.reserved
            when m.sent_ago_s > 60 then 0
            when m.outcome in ('not_sent', 'rejected', 'provider_refused') then -a.reserved
            when l.token_policy = 'max_tokens' then 0
            else coalesce(a.input_tokens::float8 + a.output_tokens - a.reserved, 0)
        end as more_tokens,
        l.token_policy = 'max_tokens' as is_most,
        (a.cost - a.charged) / a.flow_weight as flow_vt, (a.cost - a.charged) / a.tier_weight as tier_vt
), inbox as (
    insert into llmjobs_inbox (
        shard_id, pool_id, client_id, priority, size, queued, head_order, head_at, running, tier_id, flow_vt, tier_vt,
        learned, learned_estimate, learned_cost, learned_output, learned_tokens, learned_est_tokens, learned_sq_error, answered_at, tokens)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size,
        count(*) filter (where m.next = 'queued'), min(m.lane_order) filter (where m.next = 'queued'),
        min(m.available_at) filter (where m.next = 'queued'),
        -count(*), c.tier_id, sum(c.flow_vt), sum(c.tier_vt),
        count(*) filter (where c.is_lesson), coalesce(sum(m.est_cost) filter (where c.is_lesson), 0),
        coalesce(sum(c.used) filter (where c.is_lesson), 0), coalesce(sum(c.said) filter (where c.is_lesson), 0),
        coalesce(sum(c.tokens) filter (where c.is_lesson), 0),
        coalesce(sum(m.est_input_tokens::float8 + m.est_output_tokens) filter (where c.is_lesson), 0),
        -- What was reserved at most was no guess, and its error teaches nothing.
        -- Nor does one that is beyond all measure.
        coalesce(sum(case when c.is_most then 0 else power(least(abs(c.tokens - c.reserved), greatest(5 * c.reserved, 1000)), 2) end)
            filter (where c.is_lesson), 0),
        max(c.claimed_at) filter (where c.is_answered), sum(c.more_tokens)
    from moved as m
    join closed as c on c.job_id = m.id
    join llmjobs_model as p on p.id = m.pool_id
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size, c.tier_id
), results as (
    insert into llmjobs_jobresult as r (
        job_id, output, output_text, usage, cost_usd, error_code, error_message, error_class, provider_status, error_attempt)
    select m.id, case when m.next <> 'cancelled' then m.output end, coalesce(m.output_text, ''), m.usage, m.cost_usd, e.code,
        case when e.code is not null then m.error_message end, case when e.code is not null then m.error_class end,
        case when e.code is not null then m.provider_status end, case when e.code is not null then m.attempt end
    from moved as m
    -- One that was interrupted and kept has an answer; why it broke off is in its attempt.
    cross join lateral (select case when m.next <> 'completed' then m.error_code end as code) as e
    on conflict (job_id) do update
    set output = excluded.output, output_text = excluded.output_text, usage = coalesce(excluded.usage, r.usage),
        cost_usd = case when excluded.cost_usd is null then r.cost_usd else coalesce(r.cost_usd, 0) + excluded.cost_usd end,
        error_code = excluded.error_code, error_message = excluded.error_message, error_class = excluded.error_class,
        provider_status = excluded.provider_status, error_attempt = excluded.error_attempt
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20,
        case when next in ('scheduled', 'queued') then 'status' else 'done' end,
        jsonb_strip_nulls(jsonb_build_object(
            'status', next,
            'attempt', case when next in ('scheduled', 'queued') then attempt end,
            'available_at', case when next = 'scheduled' then available_at end))
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, next as state
from moved
union all
select job_id, null, null, 'busy'
from busy
