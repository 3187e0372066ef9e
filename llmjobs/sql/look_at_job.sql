-- Called by: live.waiting, for a caller that waits for the end of a job.
-- Parameters: job_id.
-- Returns: state, and the number of its last event as of the same moment; no row: no such job.
-- Index: primary key; event_of_job, its last entry.
select j.state, coalesce((select max(e.seq) from llmjobs_jobevent as e where e.job_id = j.id), 0) as last_seq
from llmjobs_job as j
where j.id = %(job_id)s
