-- Called by: admin.previews, for an operator who is about to change a weight or a tier.
-- Parameters: most, the most rows.
-- Returns: model, client, its tier, its weight, queued: a row for each client with jobs that a claim of the model may take
-- now, those with the most first. What is still in the inbox is not in it.
-- Locks: nothing. Index: laneturn_ready, all of it: some lanes a client that waits, and versions that claims left behind.
-- Why not from the counts: these know no model, and clients of different models do not share.
select m.name as pool, c.name as client, k.name as tier, c.weight, r.queued
from (
    select pool_id, flow_id, sum(queued)::bigint as queued
    from llmjobs_laneturn
    where is_ready
    group by pool_id, flow_id
    order by queued desc
    limit %(most)s
) as r
join llmjobs_flow as f on f.id = r.flow_id
join llmjobs_client as c on c.id = f.client_id
join llmjobs_tier as k on k.id = c.tier_id
join llmjobs_model as m on m.id = r.pool_id
where r.queued > 0 and not c.is_paused
