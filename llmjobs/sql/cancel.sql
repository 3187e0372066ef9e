-- Called by: steering.cancel.
-- Parameters: ids (array); client_id: only this client's, or null for any; even_dead: dead and failed jobs too, for an
-- operator who gives them up: another end, of which whoever is told of ends hears.
-- Returns: id, client_id, seq, state, attempt, has_handler of the jobs that this call changed.
-- A waiting job is cancelled at once. A running one is marked; the worker that holds it aborts the call and settles it.
-- Locks: the jobs, in the order of their ids. Waits for a verb that holds one and then decides by
-- what that verb left: the locking select gives the row as it is once the lock is held, a second look at the table the
-- row as it was when the statement began.
with held as materialized (
    select id, state as was
    from llmjobs_job
    where id = any (%(ids)s::bigint[])
        and (%(client_id)s::bigint is null or client_id = %(client_id)s)
        and (
            state in ('scheduled', 'queued')
            or (state = 'running' and cancel_requested_at is null)
            or (%(even_dead)s and state in ('dead', 'failed'))
        )
    order by id
    for no key update
), moved as materialized (
    update llmjobs_job as j
    -- After a wait Postgres computes this first on the row as it was before, and holds that against the CHECKs: so it
    -- must be a legal row whichever state either version had.
    set state = case when h.was = 'running' then j.state else 'cancelled' end,
        epoch = j.epoch + case when h.was = 'running' then 0 else 1 end,
        worker_id = case when h.was = 'running' then j.worker_id end,
        cancel_requested_at = statement_timestamp(),
        finished_at = case when h.was = 'running' then j.finished_at else statement_timestamp() end
    from held as h
    where j.id = h.id
    returning j.*, h.was = 'queued' as was_queued
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, -count(*)
    from moved as m
    join llmjobs_model as p on p.id = m.pool_id
    where m.was_queued
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'done', '{"status": "cancelled"}'
    from moved
    where state = 'cancelled'
)
select id, client_id, epoch::bigint << 20 as seq, state, attempt, has_handler
from moved
