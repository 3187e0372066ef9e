-- Called by: steering.restore, for an operator who takes a discard back.
-- Parameters: ids (array).
-- Returns: job_id of the dead and failed jobs that are dead letters again; those that were are left alone.
-- Locks: the jobs, in the order of their ids. Index: primary keys.
with held as materialized (
    select id, state, pool_id, client_id, tier_id, finished_at
    from llmjobs_job
    where id = any (%(ids)s::bigint[]) and state in ('dead', 'failed')
    order by id
    for no key update
)
insert into llmjobs_deadletter (job_id, state, error_code, error_class, pool_id, client_id, tier_id, since)
select h.id, h.state, coalesce(r.error_code, ''), coalesce(r.error_class, ''), h.pool_id, h.client_id, h.tier_id, h.finished_at
from held as h
left join lateral (select error_code, error_class from llmjobs_jobresult where job_id = h.id limit 1) as r on true
order by h.id
on conflict do nothing
returning job_id
