-- Called by: the worker's heartbeat thread, every heartbeat_s, over its own connection.
-- Parameters: worker (uuid); lease_lost: how many more leases it found lost.
-- Returns: is_draining (an operator asked for it), held: ids and attempts of the running jobs that the table says it holds,
-- cancels: those of them for which a cancel was asked.
with beat as (
    update llmjobs_worker
    set heartbeat_at = statement_timestamp(), lease_lost_count = lease_lost_count + %(lease_lost)s
    where id = %(worker)s::uuid and stopped_at is null
    returning is_draining
)
select b.is_draining,
    coalesce((
        select jsonb_agg(jsonb_build_array(id, attempt, cancel_requested_at is not null))
        from llmjobs_job
        where worker_id = %(worker)s::uuid and state = 'running'
    ), '[]') as held
from beat as b
