-- Called by: representation.streamed_texts.
-- Parameters: ids (array) of running jobs.
-- Returns: id and the text that the present attempt has streamed so far, for those that have any. Index: event_of_job.
select j.id, string_agg(e.data ->> 'text', '' order by e.seq)
from llmjobs_job as j
join llmjobs_jobevent as e on e.job_id = j.id and e.seq > j.epoch::bigint << 20 and e.type = 'delta'
where j.id = any (%(ids)s::bigint[])
group by j.id
