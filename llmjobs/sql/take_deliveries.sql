-- Called by: deliveries.Deliveries.begin, after pin_reads.
-- Parameters: clients, receivers (arrays of one length): whose turn it is; taken_s: for so long nobody else takes what is
-- taken here, and somebody does after it if this worker dies; retry_for_s: from the first try on.
-- Returns: at most one delivery for each, the one that is due the longest: id, job_id, epoch, type, url, receiver, client_id,
-- created_at, tries (with this one), tried_at: by which this try is known; public_id (null: the job is gone) and the secrets
-- that sign it (null: the client is gone; the old one: it signs no more).
-- The network comes after this transaction, never inside.
-- Locks: the deliveries, SKIP LOCKED. Index: delivery_of_receiver, from -infinity to now. Why rows are compared as a whole:
-- equal columns would let the planner walk delivery_due, and with it the backlog of a receiver that is slow.
with asked as materialized (
    select client_id, receiver
    from unnest(%(clients)s::bigint[], %(receivers)s::text[]) as a (client_id, receiver)
), due as materialized (
    select d.id
    from asked as a
    cross join lateral (
        select id
        from llmjobs_webhookdelivery
        where state = 'pending'
            and (client_id, receiver, next_at) >= (a.client_id, a.receiver, '-infinity'::timestamptz)
            and (client_id, receiver, next_at) <= (a.client_id, a.receiver, statement_timestamp())
        order by client_id, receiver, next_at
        limit 1
        for no key update skip locked
    ) as d
), taken as (
    update llmjobs_webhookdelivery as w
    set tries = w.tries + 1,
        tried_at = statement_timestamp(),
        retry_until = coalesce(w.retry_until, statement_timestamp() + make_interval(secs => %(retry_for_s)s)),
        next_at = statement_timestamp() + make_interval(secs => %(taken_s)s)
    from due as d
    where w.id = d.id
    returning w.*
)
select t.id, t.job_id, t.epoch, t.type, t.url, t.receiver, t.client_id, t.created_at, t.tries, t.tried_at, j.public_id,
    c.webhook_secret as secret,
    case when c.old_webhook_secret_until > statement_timestamp() then c.old_webhook_secret end as old_secret
from taken as t
left join llmjobs_job as j on j.id = t.job_id
left join llmjobs_client as c on c.id = t.client_id
order by t.id
