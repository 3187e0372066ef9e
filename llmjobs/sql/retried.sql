-- Called by: joining, for an SDK's own retry of a post, under the lock that all tries of it take.
-- Parameters: client_id, prompt_hash, fingerprint, api_key_id; within_s: how long a retry may come after the first try.
-- Literal: {rows}, the newest equal requests that are looked at.
-- Returns: id of the job that the try before made; no row: it made none.
-- The newest: of two equal posts that were both meant, the later one is being tried again.
-- Index: request_prompt, newest first; job's primary key.
select j.id
from (
    select job_id, fingerprint, api_key_id
    from llmjobs_jobrequest
    where client_id = %(client_id)s and prompt_hash = %(prompt_hash)s
    order by job_id desc
    limit {rows}
) as r
join llmjobs_job as j on j.id = r.job_id
where r.fingerprint = %(fingerprint)s
    and r.api_key_id = %(api_key_id)s
    and j.created_at > statement_timestamp() - make_interval(secs => %(within_s)s)
order by j.id desc
limit 1
