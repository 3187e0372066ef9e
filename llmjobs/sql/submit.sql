-- Called by: queue.submit_submissions, in the caller's transaction.
-- Parameters: jobs: a JSON array, an object a job, in the order of submission; backlog_max: for the check at commit
-- (limits.py), which asks what sets it in its transaction; client_id; is_rejected: whether one of the jobs shall rather
-- be refused than wait for the client's limits a minute. Of a transaction's submits for a client the last one says:
-- who may wait is not refused for who came before, and that one was looked at when it came.
-- Returns: id, public_id, state, lane_order and the times, a row a job, in the order of submission.
-- Locks: nothing that anybody waits for; the caller's transaction may stay open for minutes. Flow and lane are not
-- looked up: the inbox row, one a lane, tells the next claim, once this transaction has committed.
with limits as materialized (
    select concat(
        set_config('llmjobs.backlog_max', %(backlog_max)s::text, true),
        set_config('llmjobs.rejects', case
            when %(is_rejected)s then before.rejects || jsonb_build_object(%(client_id)s::text, true)
            else before.rejects - %(client_id)s::text
            end::text, true)) as told
    from (select coalesce(nullif(current_setting('llmjobs.rejects', true), ''), '{}')::jsonb as rejects) as before
), asked as materialized (
    select row_number() over () as place, nextval('llmjobs_lane_order') as lane_order, d.*
    from json_to_recordset(%(jobs)s::json) as d (
        public_id uuid, pool_id bigint, shard_id smallint, client_id bigint, tier_id bigint, endpoint text, priority smallint,
        size smallint, est_input_tokens int, est_output_tokens int, max_output_tokens int, est_cost float8, est_usd numeric,
        has_webhook boolean, has_handler boolean, keeps_partial boolean, max_attempts smallint, timeout_s float8,
        retry_for_s float8, delay_s float8, expires_in_s float8, body text, prompt_hash text, metadata jsonb, "user" text,
        max_cost_usd numeric, idempotency_key text, fingerprint text, api_key_id bigint, webhook_url text, on_settled text,
        traceparent text, task text)
    where (select told from limits) is not null
), jobs as (
    insert into llmjobs_job (
        public_id, pool_id, client_id, tier_id, endpoint, priority, size, lane_order, state, est_input_tokens, est_output_tokens,
        max_output_tokens, est_cost, est_usd, has_webhook, has_handler, keeps_partial, max_attempts, timeout_s, retry_for_s,
        available_at, retry_until, expires_at)
    select
        public_id, pool_id, client_id, tier_id, endpoint, priority, size, lane_order,
        case when delay_s > 0 then 'scheduled' else 'queued' end, est_input_tokens, est_output_tokens,
        max_output_tokens, est_cost, est_usd, has_webhook, has_handler, keeps_partial, max_attempts, timeout_s, retry_for_s,
        statement_timestamp() + make_interval(secs => delay_s),
        statement_timestamp() + make_interval(secs => delay_s + retry_for_s),
        statement_timestamp() + make_interval(secs => expires_in_s)
    from asked
    order by place
    returning id, public_id, state, created_at, available_at, retry_until, expires_at
), requests as (
    insert into llmjobs_jobrequest (
        job_id, client_id, body, prompt_hash, metadata, "user", max_cost_usd, idempotency_key, fingerprint, api_key_id,
        webhook_url, on_settled, traceparent, task)
    select j.id, a.client_id, a.body, a.prompt_hash, a.metadata, a."user", a.max_cost_usd, a.idempotency_key, a.fingerprint,
        a.api_key_id, a.webhook_url, a.on_settled, a.traceparent, a.task
    from asked as a
    join jobs as j on j.public_id = a.public_id
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, 1 << 20, 'status', jsonb_build_object('status', state, 'attempt', 0)
        || case when state = 'scheduled' then jsonb_build_object('available_at', available_at) else '{}' end
    from jobs
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select shard_id, pool_id, client_id, priority, size, count(*), min(lane_order), statement_timestamp()
    from asked
    where delay_s <= 0
    group by shard_id, pool_id, client_id, priority, size
)
select j.id, j.public_id, j.state, a.lane_order, j.created_at, j.available_at, j.retry_until, j.expires_at
from asked as a
join jobs as j on j.public_id = a.public_id
order by a.place
