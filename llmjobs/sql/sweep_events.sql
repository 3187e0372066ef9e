-- Called by: live.sweeping, where feeds may have missed wake-ups: what they would have said, out of the log itself.
-- Parameters: low, high (ids of events: low exclusive, high inclusive); client_ids, begun_at (arrays of one length):
-- clients that have feeds, and the event after which theirs begin.
-- Returns: job_id, client_id, first_seq of each job of theirs with an event in that range.
-- Index: the primary key of llmjobs_jobevent, a range that the caller bounds.
select e.job_id, j.client_id, min(e.seq) as first_seq
from llmjobs_jobevent as e
join llmjobs_job as j on j.id = e.job_id
join unnest(%(client_ids)s::bigint[], %(begun_at)s::bigint[]) as c (client_id, begun_at) on c.client_id = j.client_id
where e.id > %(low)s and e.id <= %(high)s and e.id > c.begun_at
group by e.job_id, j.client_id
