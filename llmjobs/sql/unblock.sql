-- Called by: queue.unblock, in an operator's transaction.
-- Parameters: pools (array of ids).
-- Asks for a call at once where a pool or its account is blocked. A pool that no client has used yet has nothing to try.
insert into llmjobs_inbox (shard_id, pool_id, client_id, signal)
select m.shard_id, m.id, f.client_id, jsonb_build_object('unblock', 1, 'at', extract(epoch from statement_timestamp()))
from llmjobs_model as m
cross join lateral (select client_id from llmjobs_flow where pool_id = m.id order by client_id limit 1) as f
where m.id = any (%(pools)s::bigint[])
