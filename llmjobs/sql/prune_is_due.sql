-- Called by: retention, first in its transaction.
-- Parameters: every_s: not before somebody last looked so long ago.
-- Returns: is_due: nobody else prunes, and it is time; jobs_gone_to, bodies_gone_to (null: not looked yet).
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. A statement of its own, so that
-- the next one sees what the holder before committed.
-- Why the settings: few live and many dead rows mislead the planner into scans. And who requeues or erases a job that is
-- just being looked at waits for no worker that stopped in the middle.
select
    coalesce(r.looked_at <= statement_timestamp() - make_interval(secs => %(every_s)s), true)
        and pg_try_advisory_xact_lock(hashtext('llmjobs.prune'), 0) as is_due,
    r.jobs_gone_to, r.bodies_gone_to,
    set_config('idle_in_transaction_session_timeout', '10s', true),
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('jit', 'off', true)
from (select) as one
left join llmjobs_retention as r on r.id = 1
