-- Called by: tallying.tally and tallying.help_tally, first in their transaction.
-- Parameters: every_s: not before the last fold is so long ago; least: nor before so many changes have come since.
-- Returns: is_due: nobody else folds, and it is time; is_sweep: time to look behind the bound too.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. A statement of its own, so that
-- the next one sees what the holder before committed.
-- Why the settings: few live and many dead rows mislead the planner into scans; and of a worker that froze nobody else
-- would take the lock back.
select
    coalesce(m.folded_at <= statement_timestamp() - make_interval(secs => %(every_s)s), true)
    and (
        %(least)s = 0
        or coalesce(%(least)s <= (
            select max(c.id) from llmjobs_tallychange as c where c.id > coalesce(m.folded_to, 0)
        ) - coalesce(m.folded_to, 0), false)
    )
    and pg_try_advisory_xact_lock(hashtext('llmjobs.tally'), 0) as is_due,
    coalesce(m.swept_at <= statement_timestamp() - interval '10 s', true) as is_sweep,
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('idle_in_transaction_session_timeout', '10s', true)
from (select) as one
left join llmjobs_tallymark as m on m.id = 1
