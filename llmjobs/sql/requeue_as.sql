-- Called by: steering.requeue_as, for a job that it has locked and that may be requeued.
-- Parameters: id; job: a JSON object, as submit.sql has them.
-- Returns: client_id, seq, pool_id, state.
-- As a requeue, and what was asked is another request from now on. An Idempotency-Key finds the job by the post that
-- brought it, so that one's fingerprint is kept. Who it belongs to, the key that it came with and its handler stay.
-- Locks: the rows. Index: primary keys.
with asked as materialized (
    select *
    from json_to_record(%(job)s::json) as d (
        pool_id bigint, shard_id smallint, tier_id bigint, endpoint text, priority smallint, size smallint,
        est_input_tokens int, est_output_tokens int, max_output_tokens int, est_cost float8, est_usd numeric,
        has_webhook boolean, has_handler boolean, keeps_partial boolean, max_attempts smallint, timeout_s float8,
        retry_for_s float8, delay_s float8, body text, prompt_hash text, metadata jsonb, "user" text, max_cost_usd numeric,
        fingerprint text, webhook_url text, on_settled text)
), moved as materialized (
    update llmjobs_job as j
    set state = case when a.delay_s > 0 then 'scheduled' else 'queued' end,
        pool_id = a.pool_id,
        home_id = null,
        tier_id = a.tier_id,
        endpoint = a.endpoint,
        priority = a.priority,
        size = a.size,
        lane_order = nextval('llmjobs_lane_order'),
        est_input_tokens = a.est_input_tokens,
        est_output_tokens = a.est_output_tokens,
        max_output_tokens = a.max_output_tokens,
        est_cost = a.est_cost,
        est_usd = a.est_usd,
        has_webhook = a.has_webhook,
        has_handler = j.has_handler or a.has_handler,
        keeps_partial = a.keeps_partial,
        max_attempts = a.max_attempts,
        timeout_s = a.timeout_s,
        retry_for_s = a.retry_for_s,
        epoch = j.epoch + 1,
        failures = 0,
        available_at = statement_timestamp() + make_interval(secs => a.delay_s),
        retry_until = statement_timestamp() + make_interval(secs => a.delay_s + a.retry_for_s),
        expires_at = null,
        finished_at = null,
        cancel_requested_at = null
    from asked as a
    where j.id = %(id)s
    returning j.*
), requests as (
    update llmjobs_jobrequest as r
    set body = a.body, prompt_hash = a.prompt_hash, metadata = a.metadata, "user" = a."user", max_cost_usd = a.max_cost_usd,
        key_fingerprint = case when r.idempotency_key is not null then coalesce(r.key_fingerprint, r.fingerprint) end,
        fingerprint = a.fingerprint, webhook_url = a.webhook_url, on_settled = coalesce(a.on_settled, r.on_settled)
    from asked as a
    where r.job_id = %(id)s
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select a.shard_id, m.pool_id, m.client_id, m.priority, m.size, 1, m.lane_order, m.available_at
    from moved as m
    cross join asked as a
    where m.state = 'queued'
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_strip_nulls(jsonb_build_object(
        'status', state, 'attempt', attempt, 'available_at', case when state = 'scheduled' then available_at end))
    from moved
)
select client_id, epoch::bigint << 20 as seq, pool_id, state
from moved
