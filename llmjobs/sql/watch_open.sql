-- Called by: watch, second in its transaction.
-- Returns: kind, level and ids of what is open and not a budget's: what is open stays so by a lower bound.
-- Index: incident_open_once, which holds the open ones alone.
select kind, level, provider_id, pool_id, tier_id, client_id
from llmjobs_incident
where closed_at is null and kind <> 'breaker' and kind <> 'budget'
