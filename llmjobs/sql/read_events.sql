-- Called by: live.reading, for all jobs of a web process that were woken, or for one viewer's page of history.
-- Parameters: job_ids, positions (arrays of one length): each job is read after its position. {rows}: the most a job.
-- Returns: job_id, seq, type, data (as text: it goes to the browser as it is), at_ms (unix time); by job, then seq.
-- Index: event_of_job (job_id, seq), one short range a job. LATERAL with its own limit, because one limit over all
-- would let a job with a long log hold up every other.
select w.job_id, e.seq, e.type, e.data::text, (extract(epoch from e.created_at) * 1000)::bigint as at_ms
from unnest(%(job_ids)s::bigint[], %(positions)s::bigint[]) as w (job_id, position)
cross join lateral (
    select seq, type, data, created_at
    from llmjobs_jobevent
    where job_id = w.job_id and seq > w.position
    order by seq
    limit {rows}
) as e
order by w.job_id, e.seq
