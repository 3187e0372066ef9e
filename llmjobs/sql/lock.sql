-- Called by: queue.claim, first in its transaction.
-- Parameters: shard.
-- Locks: the shard's turnstile, which nothing references and nobody edits, until the commit, some milliseconds later. The
-- planner, and the time that this may wait, are pinned before that: what is joined is computed before what is locked.
-- Why a statement of its own: a statement that waits for a lock keeps the snapshot from before its wait. Inside the
-- claim it would read the turn before last.
with pinned as materialized (
    {pin.sql}
)
select case
    -- Since Postgres 17. A pipeline of which only a part has arrived (of a worker's first claims, whose texts may not fit
    -- into the socket) does not count as idle.
    when current_setting('transaction_timeout', true) is not null then set_config('transaction_timeout', '12s', true)
end
from pinned
cross join llmjobs_turnstile as t
where t.id = %(shard)s
for no key update of t
