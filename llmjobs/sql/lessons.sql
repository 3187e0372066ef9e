-- Called by: lessons.output_tokens.
-- Parameters: pool, client.
-- Returns: learned (jobs, of which 4 are the first guess), output_tokens (mean of the client's completed jobs there); no row
-- for who never had a job there. Index: flow_of_pool_and_client, the flow turn's primary key.
select t.learned, t.output_tokens
from llmjobs_flow as f
cross join lateral (select * from llmjobs_flowturn where flow_id = f.id order by turn desc limit 1) as t
where f.pool_id = %(pool)s and f.client_id = %(client)s and t.output_tokens is not null
