-- Called by: queue.settle, for those whom settle.sql did not return.
-- Parameters: ids, attempts (arrays of one length); worker (uuid).
-- Returns: the ids whose attempt this worker has closed itself: their acknowledgement was lost, not their lease.
select a.job_id
from unnest(%(ids)s::bigint[], %(attempts)s::int[]) as d (id, attempt)
join llmjobs_attempt as a on a.job_id = d.id and a.number = d.attempt
where a.worker_id = %(worker)s::uuid and a.outcome is not null and a.error_code is distinct from 'lease_lost'
