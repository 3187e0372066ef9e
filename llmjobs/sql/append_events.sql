-- Called by: events.append, once a tick of a worker, all its jobs together.
-- Parameters: events: a JSON array of {job_id, attempt, seq, type, data}; worker (uuid).
-- Every row names its lease: what a stale worker still has to say is dropped. `on conflict` because a tick whose
-- acknowledgement was lost is sent again.
-- Index: job's primary key alone: an index of what runs is full of rows that no snapshot let go.
with said as materialized (
    select *
    from json_to_recordset(%(events)s::json) as e (job_id bigint, attempt int, seq bigint, type text, data jsonb)
), jobs as materialized (
    select id, attempt, state, worker_id
    from llmjobs_job
    where id = any (array(select distinct job_id from said))
)
insert into llmjobs_jobevent (job_id, seq, type, data)
select e.job_id, e.seq, e.type, e.data
from said as e
join jobs as j on j.id = e.job_id and j.attempt = e.attempt and j.state = 'running' and j.worker_id = %(worker)s::uuid
order by e.job_id, e.seq
on conflict (job_id, seq) do nothing
