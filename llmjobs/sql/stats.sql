-- Called by: stats.queue_stats.
-- Parameters: client_ids (array), or null for all.
-- Returns: a row a state, client, tier and priority with its count, over the jobs that are kept.
select j.state, c.name as client, t.name as tier, j.priority, count(*) as jobs
from llmjobs_job as j
join llmjobs_client as c on c.id = j.client_id
join llmjobs_tier as t on t.id = j.tier_id
where %(client_ids)s::bigint[] is null or j.client_id = any (%(client_ids)s::bigint[])
group by j.state, c.name, t.name, j.priority
