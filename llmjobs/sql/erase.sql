-- Called by: queue.erase, for a job that it has locked, and retention, for those that prune_pick.sql has.
-- Parameters: ids (of finished jobs); key_kept_s: how long a repeated Idempotency-Key finds its job.
-- Returns: nothing. Takes away what was asked, what came back and what was seen of it, and all words that may quote these:
-- a provider's errors, in attempts and in what was decided on them, and those of webhooks and handlers. States, codes,
-- times, tokens and cost stay.
-- A request whose key may still come again stays as a row of its key and its fingerprint: the same post shall find the
-- first job, not pay for another.
-- Links that show the job go too: there is nothing to show.
-- Locks: the rows. Index: the primary keys; event_of_job, attempt_of_job, delivery_of_end, handlercall_of_end, that of
-- llmjobs_sharedlink.job_id.
with young as materialized (
    select r.job_id
    from llmjobs_jobrequest as r
    join llmjobs_job as j on j.id = r.job_id
    where r.job_id = any (%(ids)s::bigint[])
        and r.idempotency_key is not null
        and j.created_at > statement_timestamp() - make_interval(secs => %(key_kept_s)s)
), emptied as (
    update llmjobs_jobrequest
    set body = '', prompt_hash = '', metadata = '{}', "user" = null, api_key_id = null, webhook_url = null,
        on_settled = null, task = null
    where job_id = any (array(select job_id from young))
), removed as (
    delete from llmjobs_jobrequest
    where job_id = any (%(ids)s::bigint[]) and job_id not in (select job_id from young)
), results as (
    update llmjobs_jobresult
    set output = null, output_text = '', error_message = null
    where job_id = any (%(ids)s::bigint[])
), events as (
    delete from llmjobs_jobevent where job_id = any (%(ids)s::bigint[])
), links as (
    delete from llmjobs_sharedlink where job_id = any (%(ids)s::bigint[])
), attempts as (
    update llmjobs_attempt
    set error_message = null,
        decision = case
            when position(error_code || ': ' in decision) > 0 then split_part(decision, error_code || ': ', 1) || error_code
            else decision
        end
    where job_id = any (%(ids)s::bigint[]) and error_message is not null
), deliveries as (
    -- A URL may hold a token. One that is still to be told needs it.
    update llmjobs_webhookdelivery
    set error = null,
        url = case when state = 'pending' then url else '' end
    where job_id = any (%(ids)s::bigint[])
)
update llmjobs_handlercall set error = null where job_id = any (%(ids)s::bigint[]) and error is not null
