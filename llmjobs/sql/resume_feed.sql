-- Called by: live.reading, for a feed that takes up again what happened since a moment.
-- Parameters: client_ids (array); since_ms (unix time). {jobs}: the most looked at, the newest a client.
-- Returns: id, public_id, position of each job with events since then: its log is read after that position.
-- Index: job_of_client (client_id, id desc), a bounded walk; then event_of_job for those not finished before.
select j.id, j.public_id, e.first_seq - 1 as position
from unnest(%(client_ids)s::bigint[]) as c (client_id)
cross join lateral (
    select id, public_id, finished_at
    from llmjobs_job
    where client_id = c.client_id
    order by id desc
    limit {jobs}
) as j
cross join lateral (
    select min(seq) as first_seq
    from llmjobs_jobevent
    where job_id = j.id and created_at >= to_timestamp(%(since_ms)s / 1000.0)
) as e
where (j.finished_at is null or j.finished_at >= to_timestamp(%(since_ms)s / 1000.0))
    and e.first_seq is not null
order by j.id
