-- Called by: webhooks.redeliver, for an operator, in the caller's transaction.
-- Parameters: ids (array).
-- Returns: id of each, due now, with all its time to retry before it. A try that is under way counts no more, unless it
-- is taken: then the receiver may get it twice, with the same webhook-id.
-- Locks: the deliveries, in the order of their ids.
with held as materialized (
    select id
    from llmjobs_webhookdelivery
    where id = any (%(ids)s::bigint[]) and url <> '' -- of an erased job
    order by id
    for no key update
)
update llmjobs_webhookdelivery as w
set state = 'pending',
    tries = 0,
    tried_at = null,
    retry_until = null,
    ended_at = null,
    next_at = statement_timestamp()
from held as h
where w.id = h.id
returning w.id
