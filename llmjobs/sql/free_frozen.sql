-- Called by: maintenance, a duty of every worker, with its look for lost leases.
-- Parameters: for_s: how long a transaction of ours must have been open.
-- Returns: pid of each session that was ended.
-- A worker that freezes while it sends a pipeline leaves a session that waits for the rest of it and holds what it has locked:
-- the turnstile, say, and nobody could claim. Postgres counts that session as active, so its time-out for idle
-- transactions does not begin; that for whole transactions exists since Postgres 17 (lock.sql). Ours are known by the
-- header that each statement begins with, so no session of the host's is ended. A worker that was merely slow connects
-- again, and does again what was not committed.
-- Why materialized: a condition that ends sessions may be asked before those that say which.
with frozen as materialized (
    select pid
    from pg_stat_activity
    where datname = current_database() and usename = current_user and pid <> pg_backend_pid()
        and state = 'active' and wait_event = 'ClientRead' and query like '-- Called by: %%'
        and xact_start < clock_timestamp() - make_interval(secs => %(for_s)s)
)
select pid
from frozen
where pg_terminate_backend(pid)
