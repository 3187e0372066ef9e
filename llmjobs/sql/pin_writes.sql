-- Called by: queue.settle, first in its transaction.
-- Why: a plan that was made while the tables were small is kept until they are analysed again, and scans them meanwhile.
-- All that a settle touches, it finds by key.
select
    set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true),
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_material', 'off', true),
    set_config('jit', 'off', true)
