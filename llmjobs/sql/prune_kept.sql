-- Included by: prune_pick.sql and prune_total.sql, where j is a job that finished.
-- Parameters: key_kept_s: how long a repeated Idempotency-Key finds its job.
-- Says: is_kept: its end is still to be told, or it goes as a whole and its key may still come again. A body goes without
-- its key: erase.sql leaves that.
-- Index: delivery_of_end, handlercall_of_end, the request's primary key; looked up where a job can have such rows. Asked as
-- scalars, since the planner makes a hash of the whole table of what is asked with exists.
(
    j.has_webhook and coalesce(
        (select true from llmjobs_webhookdelivery as w where w.job_id = j.id and w.state = 'pending' limit 1), false)
    or j.has_handler and coalesce(
        (select true from llmjobs_handlercall as h where h.job_id = j.id and h.state = 'pending' limit 1), false)
    or {bodies} = 0
        and j.created_at > statement_timestamp() - make_interval(secs => %(key_kept_s)s)
        and coalesce((select r.idempotency_key is not null from llmjobs_jobrequest as r where r.job_id = j.id), false)
)
