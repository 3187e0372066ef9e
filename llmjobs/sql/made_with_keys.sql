-- Called by: intake, before it makes jobs with keys, in Django's connection.
-- Parameters: client_id; keys: a text array; keep_s: how long a key finds its job; since: a moment, or null: jobs made
-- since then are found whatever their age.
-- Returns: job_id, public_id, state, idempotency_key, fingerprint of what brought the key, is_kept: whether the key
-- still finds the job.
-- Locks: nothing.
-- Index: request_idempotency_key, which is partial: its condition stands here, or an array would not match it.
select j.id, j.public_id, j.state, r.idempotency_key, coalesce(nullif(r.key_fingerprint, ''), r.fingerprint),
    j.created_at > statement_timestamp() - make_interval(secs => %(keep_s)s)
        or coalesce(j.created_at >= %(since)s::timestamptz, false)
from llmjobs_jobrequest as r
join llmjobs_job as j on j.id = r.job_id
where r.client_id = %(client_id)s
    and r.idempotency_key = any(%(keys)s::text[])
    and r.idempotency_key is not null
