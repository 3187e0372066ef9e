-- Called by: queue.sweep, first in its transaction.
-- Parameters: shard; is_full: look from the very first row of the inbox.
-- Returns: is_due: there are rows behind the bound, or lanes due to age, or nobody has looked for ten seconds, and no
-- other worker is sweeping.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. Index: inbox_of_shard,
-- laneturn_aging, each between two bounds.
select
    (
        exists (
            select
            from llmjobs_inbox as i
            where i.shard_id = %(shard)s and i.id >= case when %(is_full)s then 0 else s.sweep_from end and i.id < s.bound_id
        )
        or exists (
            select
            from llmjobs_laneturn as l
            where l.is_ready and l.ages_at is not null and l.ages_at > s.aged_to and l.ages_at <= statement_timestamp()
        )
        or s.aged_to < statement_timestamp() - interval '10 s'
    )
    and pg_try_advisory_xact_lock(hashtext('llmjobs.sweep'), %(shard)s) as is_due,
    set_config('idle_in_transaction_session_timeout', '10s', true) -- of a worker that froze nobody else takes the lock back
from (
    select * from llmjobs_shardturn where shard_id = %(shard)s order by turn desc limit 1
) as s
