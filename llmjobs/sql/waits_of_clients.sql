-- Called by: stats.queue_stats, for some clients.
-- Parameters: client_ids (array).
-- Literal: {heads}, the most looked at of each lane.
-- Returns: as waits.sql does, of these clients alone. The oldest is looked for among the first of each lane: retries
-- keep their place, so the very first need not be the oldest. What was handed back is found once a claim knows of it.
-- Why a range of one client: with `=` the planner may walk everybody's attempts backwards until it has found enough.
-- Index: attempt_of_client. job_ready: whether there is a lane at all is asked of every pool, as lanes are made by the
-- next claim, and then from its head on.
with latest as materialized (
    select a.waited_s
    from unnest(%(client_ids)s::bigint[]) as c (id)
    cross join lateral (
        select id, waited_s
        from llmjobs_attempt
        where client_id >= c.id and client_id <= c.id
        order by client_id, id desc
        limit 1000
    ) as a
    order by a.id desc
    limit 1000
), flow as materialized (
    select m.id as pool_id, c.id as client_id, f.id as flow_id
    from unnest(%(client_ids)s::bigint[]) as c (id)
    cross join llmjobs_model as m
    cross join lateral (
        select
        from llmjobs_job
        where pool_id = m.id and client_id = c.id and state = 'queued'
        order by priority, size, lane_order
        limit 1
    ) as j
    left join llmjobs_flow as f on f.pool_id = m.id and f.client_id = c.id
), head as materialized (
    select f.pool_id, f.client_id, p.priority, s.size, coalesce(t.head_order, 0) as head_order
    from flow as f
    cross join (values (0), (1), (5), (8), (10)) as p (priority)
    cross join (values (0), (1)) as s (size)
    left join llmjobs_lane as l on l.flow_id = f.flow_id and l.priority = p.priority and l.size = s.size
    left join lateral (
        select head_order
        from llmjobs_laneturn
        where lane_id = l.id
        order by turn desc
        limit 1
    ) as t on true
)
select
    (select percentile_cont(0.5) within group (order by waited_s) from latest) as p50,
    (select percentile_cont(0.95) within group (order by waited_s) from latest) as p95,
    extract(epoch from statement_timestamp() - (
        select min(j.available_at)
        from head as h
        cross join lateral (
            select available_at
            from llmjobs_job
            where pool_id = h.pool_id and client_id = h.client_id and priority = h.priority and size = h.size
                and lane_order >= h.head_order and state = 'queued'
            order by lane_order
            limit {heads}
        ) as j
    ))::float8 as oldest_queued_s
