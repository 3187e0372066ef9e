-- Called by: samples.sample, first in its transaction.
-- Returns: is_due: no other worker is sampling.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. A statement of its own, so that
-- the next one sees what the holder before committed.
-- Why the settings: few live and many dead turns mislead the planner into scans; and of a worker that froze nobody else
-- would take the lock back.
select pg_try_advisory_xact_lock(hashtext('llmjobs.sample'), 0) as is_due,
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('idle_in_transaction_session_timeout', '10s', true)
