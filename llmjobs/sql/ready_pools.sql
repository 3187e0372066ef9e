-- Called by: queue.ready_pools, by a worker with free slots that does not know where to claim.
-- Parameters: shard.
-- Returns: the ids of the pools with a ready lane and room in their limits, with news in the inbox, or with a client whose
-- limits have room again. While all claims are paused only the latter two: who goes there folds, and takes nothing.
-- Why so: an index probe a pool, whatever the backlog; the pools are few beside the jobs.
select m.id
from llmjobs_model as m
where m.shard_id = %(shard)s
    and not m.is_paused
    and not exists (select from llmjobs_claimspause where resumed_at is null)
    and exists (
        select
        from llmjobs_tier as k
        cross join lateral (
            select floors, floor_flows from llmjobs_tierturn where pool_id = m.id and tier_id = k.id order by turn desc limit 1
        ) as t
        cross join generate_series(0, 9) as v (level)
        cross join lateral (
            select 1
            from llmjobs_laneturn
            where pool_id = m.id and tier_id = k.id and level = v.level and is_ready
                and (vt, flow_id) >= (t.floors[v.level + 1], coalesce(t.floor_flows[v.level + 1], 0))
            limit 1
        ) as l
        where t.floors[v.level + 1] < 'infinity'
    )
    -- Not while its limits, or its account's, are used up, or its provider takes nothing.
    and not exists (
        select
        from (values (0, m.id), (1, m.provider_id)) as k (kind, of_id)
        cross join lateral (
            select blocked_until, opens_at from llmjobs_bucketturn where kind = k.kind and of_id = k.of_id order by turn desc limit 1
        ) as b
        where greatest(b.blocked_until, b.opens_at) > extract(epoch from statement_timestamp())
    )
union
select i.pool_id
from llmjobs_inbox as i
where i.shard_id = %(shard)s
    and i.id >= (select s.bound_id from llmjobs_shardturn as s where s.shard_id = %(shard)s order by s.turn desc limit 1)
union
select t.pool_id
from llmjobs_flowturn as t
join llmjobs_model as m on m.id = t.pool_id
where m.shard_id = %(shard)s and t.opens_at is not null and t.opens_at <= extract(epoch from statement_timestamp())
    and t.opens_at > (
        select least(s.opened_to, extract(epoch from statement_timestamp()) - 10)
        from llmjobs_shardturn as s
        where s.shard_id = %(shard)s
        order by s.turn desc
        limit 1
    )
