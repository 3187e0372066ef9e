-- Included by: lock, first in a claim's transaction. Called by: places, stats, for what they only look at.
-- Why: few live and many dead rows mislead the planner into scans after an ANALYZE, so the claim's transaction forbids
-- them; every access below has its index. Nested loops are for subqueries by key alone. SET LOCAL, as set_config, because
-- startup options do not pass a pooler. The timeouts free the turnstile from a worker that froze while it held it.
select
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_nestloop', 'off', true),
    set_config('enable_material', 'off', true),
    set_config('jit', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('lock_timeout', '10s', true),
    set_config('idle_in_transaction_session_timeout', '10s', true)
