-- Called by: queue.sweep, first in its transaction.
-- Parameters: shard.
-- Returns: is_due: there are rows behind the bound, and no other worker is sweeping.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for. Index: inbox_of_shard.
select
    exists (
        select
        from llmjobs_inbox as i
        where i.shard_id = %(shard)s
            and i.id < (
                select s.bound_id from llmjobs_shardturn as s where s.shard_id = %(shard)s order by s.turn desc limit 1
            )
    )
    and pg_try_advisory_xact_lock(hashtext('llmjobs.sweep'), %(shard)s) as is_due
