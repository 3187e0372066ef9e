-- Called by: queue.settle_with_handler, between the settle and the host's own queries.
-- Takes back what pin_writes.sql pinned for the transaction: what the session began with counts again.
select set_config(name, reset_val, true)
from pg_settings
where name in ('enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_material', 'jit')
