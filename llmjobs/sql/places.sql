-- Called by: stats.places.
-- Parameters: ids (array) of queued jobs, at most a page of them.
-- Literal: {most}, the place beyond which nobody counts.
-- Returns: id; ahead: queued jobs of the pool that are more urgent, or as urgent and older, counted up to {most};
-- starts_per_s: of the pool, over its latest 100 starts of the last ten minutes; and what may block the job.
-- Index: job_ready, attempt_of_pool, worker_living. The order is that of a plain queue by priority; fairness between
-- clients makes the true place better or worse.
select j.id,
    (
        select count(*)
        from (
            select
            from llmjobs_job as o
            where o.pool_id = j.pool_id and o.state = 'queued' and (o.priority, o.lane_order) < (j.priority, j.lane_order)
            limit {most}
        ) as o
    ) as ahead,
    (
        select count(*) / greatest(extract(epoch from statement_timestamp() - min(a.claimed_at)), 1)
        from (
            select claimed_at
            from llmjobs_attempt
            where pool_id = j.pool_id and claimed_at > statement_timestamp() - make_interval(mins => 10)
            order by claimed_at desc
            limit 100
        ) as a
    )::float8 as starts_per_s,
    c.is_paused as is_client_paused,
    m.is_paused as is_model_paused,
    p.is_paused as is_provider_paused,
    coalesce(f.running >= coalesce(c.max_running, k.max_running), false) as is_client_full,
    coalesce(r.running >= m.max_running, false) as is_model_full,
    not exists (
        select
        from llmjobs_worker as w
        where w.stopped_at is null and not w.is_draining
            and w.heartbeat_at > statement_timestamp() - make_interval(secs => %(lease_s)s)
            and (w.pools = '{}' or m.name = any (w.pools))
            and (w.tiers = '{}' or k.name = any (w.tiers))
    ) as has_no_worker
from llmjobs_job as j
join llmjobs_client as c on c.id = j.client_id
join llmjobs_tier as k on k.id = c.tier_id
join llmjobs_model as m on m.id = j.pool_id
join llmjobs_provider as p on p.id = m.provider_id
left join lateral (
    select t.running
    from llmjobs_flow as x
    join llmjobs_flowturn as t on t.flow_id = x.id
    where x.pool_id = j.pool_id and x.client_id = j.client_id
    order by t.turn desc
    limit 1
) as f on true
left join lateral (
    select sum(t.running) as running
    from llmjobs_tier as y
    cross join lateral (
        select running from llmjobs_tierturn where pool_id = j.pool_id and tier_id = y.id order by turn desc limit 1
    ) as t
) as r on true
where j.id = any (%(ids)s::bigint[])
