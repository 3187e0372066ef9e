-- Called by: job_streams, for a host that follows one job.
-- Parameters: job_ids, positions: arrays of one, as of read_events. {rows}, {bytes}: the most, but one event at least.
-- Returns: state and epoch of the job, and as of the same moment its events after that position, by seq: seq, type, data
-- (as text), is_newest; one row without an event where there is none, no row where there is no such job.
-- Locks: nothing. Index: primary key; event_of_job, one short range.
-- Why one statement: who sees that a job has ended, and nothing after its position, has seen its last event.
select j.state, j.epoch, e.seq, e.type, e.data, e.is_newest
from llmjobs_job as j
left join (
{read_events.sql}
) as e on e.job_id = j.id
where j.id = any (%(job_ids)s::bigint[])
order by e.seq
