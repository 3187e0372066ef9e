-- Called by: queue.claim, second in its transaction.
-- Parameters: shard.
-- Locks: the shard's turnstile, which nothing references and nobody edits, until the commit, some milliseconds later.
-- Why a statement of its own: a statement that waits for a lock keeps the snapshot from before its wait. Inside the
-- claim it would read the turn before last.
select 1
from llmjobs_turnstile
where id = %(shard)s
for no key update
