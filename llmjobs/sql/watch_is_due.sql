-- Called by: watch, first in its transaction.
-- Parameters: every_s: not before the last look is so long ago; most_ms: the longest that one check may take.
-- Returns: is_due: nobody else is looking, and it is time; is_full: also for what is looked at once a minute.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. A statement of its own, so that
-- the next one sees what the holder before committed.
-- Why the settings: few live and many dead rows mislead the planner into scans; of a worker that froze nobody else would
-- take the lock back; and a check that takes long is left out, never waited for.
select coalesce(w.watched_at <= statement_timestamp() - make_interval(secs => %(every_s)s), true)
        and pg_try_advisory_xact_lock(hashtext('llmjobs.watch'), 0) as is_due,
    coalesce(%(every_s)s <= 0 or date_trunc('minute', w.watched_at) < date_trunc('minute', statement_timestamp()), true) as is_full,
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_nestloop', 'off', true), -- for subqueries by key alone: thousands of incidents are compared by hash
    set_config('jit', 'off', true),
    set_config('idle_in_transaction_session_timeout', '10s', true),
    set_config('lock_timeout', '1s', true),
    set_config('statement_timeout', %(most_ms)s::text, true)
from (select) as one
left join llmjobs_watch as w on w.id = 1
