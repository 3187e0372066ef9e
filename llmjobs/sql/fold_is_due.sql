-- Called by: folding.help_fold, first in its transaction.
-- Parameters: shard.
-- Returns: a row if there is news in the inbox, and nobody holds the turnstile.
-- Locks: the turnstile, not waited for. Index: inbox_of_shard from the bound on.
select set_config('idle_in_transaction_session_timeout', '10s', true) -- of one that froze nobody else takes the lock back
from llmjobs_turnstile as t
where t.id = %(shard)s
    and exists (
        select
        from llmjobs_inbox as i
        where i.shard_id = %(shard)s
            and i.id >= (select s.bound_id from llmjobs_shardturn as s where s.shard_id = %(shard)s order by s.turn desc limit 1)
    )
for no key update of t skip locked
