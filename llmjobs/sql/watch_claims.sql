-- Called by: watch.
-- Returns: since (as text), by, reason of the pause of all claims that holds now; no row: there is none.
-- Index: claimspause_open.
select to_char(since at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"') as since, by, reason
from llmjobs_claimspause
where resumed_at is null
