-- Called by: stats, first in a transaction, or under a savepoint, that is taken back at its end; fallback.fall_back and
-- deliveries.Deliveries, first.
-- Why: few live and many dead rows mislead the planner into scans after an ANALYZE; all that is read has its index.
select
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('jit', 'off', true)
