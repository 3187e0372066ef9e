-- Called by: stats, first in a transaction, or under a savepoint, that is taken back at its end; fallback.fall_back and
-- deliveries.Deliveries, first.
-- Why: few live and many dead rows mislead the planner into scans after an ANALYZE; all that is read has its index.
select
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('jit', 'off', true),
    set_config('idle_in_transaction_session_timeout', '10s', true) -- of a worker that froze nobody else takes its locks back
