-- Called by: joining, for dedupe "join", under the lock that all take who join this client's equal jobs.
-- Parameters: client_id, prompt_hash (of endpoint, model and body), and what else was asked: priority, delay_s,
-- expires_in_s, timeout_s, max_attempts, retry_for_s, max_cost_usd, keeps_partial, webhook_url, on_settled; has_key: it came
-- with an Idempotency-Key.
-- Literal: {rows}, the newest equal requests that are looked at.
-- Returns: id of the client's oldest equal job that has not ended, whose cancel nobody asked for, and that promises no
-- less than was asked; no row: there is none. Options are compared as they were asked for, each from its own submit on:
-- else no job with a deadline could ever be joined by an equal one that comes later.
-- Index: request_prompt, newest first; job's primary key.
select j.id
from (
    select job_id, max_cost_usd, webhook_url, on_settled, idempotency_key
    from llmjobs_jobrequest
    where client_id = %(client_id)s and prompt_hash = %(prompt_hash)s
    order by job_id desc
    limit {rows}
) as r
join llmjobs_job as j on j.id = r.job_id
where j.state in ('scheduled', 'queued', 'running')
    and j.cancel_requested_at is null
    and j.priority <= %(priority)s
    and (j.attempt > 0 or j.available_at <= statement_timestamp() + make_interval(secs => %(delay_s)s))
    -- What may expire is joined by what may as soon, and not in the moment between its deadline and its end.
    and (
        j.expires_at is null
        or extract(epoch from j.expires_at - j.created_at) >= %(expires_in_s)s::float8 - 0.001
            and (j.attempt > 0 or j.expires_at > statement_timestamp())
    )
    and j.timeout_s >= %(timeout_s)s
    and j.max_attempts >= %(max_attempts)s
    and j.retry_for_s >= %(retry_for_s)s
    and (r.max_cost_usd is null or r.max_cost_usd >= %(max_cost_usd)s::numeric)
    and (%(keeps_partial)s or not j.keeps_partial)
    -- A job remembers one key.
    and (not %(has_key)s or r.idempotency_key is null)
    -- Who is to be told is told by that job alone: by the same road, or not at all.
    and (%(webhook_url)s::text is null or r.webhook_url = %(webhook_url)s::text)
    and (%(on_settled)s::text is null or r.on_settled = %(on_settled)s::text)
order by j.id
limit 1
