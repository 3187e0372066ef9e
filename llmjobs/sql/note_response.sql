-- Called by: writer.Writer, with the tick after a provider has named a response that goes on in the background.
-- Parameters: responses: a JSON array of {job_id, number, response_id}; worker (uuid).
-- From then on a later attempt picks the response up, should this worker be lost: claim.sql reads it.
-- Every row names its lease (job, number, worker), and one that has ended is left alone: what a stale worker heard of is
-- not noted. Locks: the attempts, in the order of their ids, as whoever ends several might hold one of them.
-- Index: attempt_of_job.
with named as materialized (
    select *
    from json_to_recordset(%(responses)s::json) as n (job_id bigint, number int, response_id text)
), held as materialized (
    select a.id, n.response_id
    from named as n
    join llmjobs_attempt as a on a.job_id = n.job_id and a.number = n.number
    where a.worker_id = %(worker)s::uuid and a.ended_at is null
    order by a.id
    for no key update of a
)
update llmjobs_attempt as a
set provider_response_id = h.response_id
from held as h
where a.id = h.id
