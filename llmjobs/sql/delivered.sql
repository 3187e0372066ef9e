-- Called by: deliveries.Deliveries, after a receiver took it.
-- Parameters: id; status: of its answer.
-- Returns: id, unless it had ended before. Whoever's try it was: taken is taken.
-- Locks: the delivery. Index: its primary key.
update llmjobs_webhookdelivery
set state = 'delivered',
    ended_at = statement_timestamp(),
    status = %(status)s,
    error = null,
    -- Of a job that was erased meanwhile: it may hold a token, and nobody needs it any more.
    url = case
        when exists (select from llmjobs_jobrequest as r where r.job_id = llmjobs_webhookdelivery.job_id and r.body <> '') then url
        else ''
    end
where id = %(id)s and state = 'pending'
returning id
