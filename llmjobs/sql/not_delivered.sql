-- Called by: deliveries.Deliveries, after a try that failed.
-- Parameters: id, tried_at: the try; status (null: no answer), error: in words; is_final: it shall not be tried again;
-- base_s, cap_s: seconds, the next try comes after half to all of base · 2^tries, at most cap; wait_s: what the receiver
-- asked for, at most cap too (null: nothing).
-- Returns: state: `failed` once its time to retry is over. The last try is at the end of that time. No row: somebody else
-- has tried it since, or it was redelivered; their word counts.
-- Locks: the delivery. Index: its primary key.
update llmjobs_webhookdelivery
set state = case when %(is_final)s or retry_until <= statement_timestamp() then 'failed' else 'pending' end,
    ended_at = case when %(is_final)s or retry_until <= statement_timestamp() then statement_timestamp() end,
    next_at = least(retry_until, statement_timestamp() + make_interval(secs => least(%(cap_s)s, greatest(
        coalesce(%(wait_s)s::float8, 0),
        least(%(cap_s)s, %(base_s)s * power(2, least(tries, 30))) * (1 - random() / 2))))),
    status = %(status)s,
    error = %(error)s
where id = %(id)s and tried_at = %(tried_at)s and state = 'pending'
returning state
