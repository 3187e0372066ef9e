-- Called by: queue.ready_pools, by a worker with free slots that does not know where to claim.
-- Parameters: shard.
-- Returns: the ids of the pools with a ready lane, or with news in the inbox.
-- Why so: an index probe a pool, whatever the backlog; the pools are few beside the jobs.
select m.id
from llmjobs_model as m
where m.shard_id = %(shard)s
    and not m.is_paused
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
union
select i.pool_id
from llmjobs_inbox as i
where i.shard_id = %(shard)s
    and i.id >= (select s.bound_id from llmjobs_shardturn as s where s.shard_id = %(shard)s order by s.turn desc limit 1)
