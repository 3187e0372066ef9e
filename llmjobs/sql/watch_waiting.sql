-- Called by: watch, for backlogs and for jobs that no worker serves.
-- Parameters: target_s: the backlog target of a tier that has none of its own; no_worker_s: for so long a job waits before
-- it is asked who serves it; lease_s; stay: a backlog stays one down to this part of its target.
-- Literal: {rows}, the most jobs of a tier that are looked at, the oldest; {lanes}, the most lanes of a tier that has more.
-- Returns: a row a tier and model where jobs wait so long that could run: tier_id, tier, target_s, pool_id, model, jobs (of
-- those looked at), oldest_s; is_served: a worker that claims serves both; are_workers: there is one that claims at all.
-- What waits on purpose does not count: of a client, model or provider that was paused, of a client that has used up half of
-- its own limits (it comes and goes at them, moment by moment; but not where no worker lives: what ran then is not over, and
-- nobody takes it back). Whoever floods its queue has all the oldest of its tier: behind these the heads of the ready lanes
-- are looked at, in the order in which claims would take them.
-- A worker that stopped, or is late, counts for as long as a restart may take.
-- Index: job_queued_of_tier, from where the last count found the oldest of the tier, or from where one became queued since
-- then (tiers.sql); flow_of_pool_and_client and the turns' primary keys, a probe each a client and model; where a tier has more
-- old jobs, laneturn_ready, and job_ready, a probe a lane.
with worker as materialized (
    select pools, tiers
    from llmjobs_worker
    where not is_draining
        and coalesce(stopped_at, heartbeat_at)
            > statement_timestamp() - make_interval(secs => greatest(%(no_worker_s)s, %(lease_s)s))
), turn as materialized (
    select bound_id, oldest_at, tier_oldest
    from llmjobs_jobcountturn
    order by turn desc
    limit 1
), change as materialized (
    select tier_id, min(oldest_at) as oldest_at
    from (
        select tier_id, oldest_at from llmjobs_jobcountchange where id >= coalesce((select bound_id from turn), 0) order by id
    ) as c
    group by tier_id
), tier as materialized (
    select k.id, k.name, coalesce(k.backlog_target_s, %(target_s)s::float8) as target_s,
        case
            when not exists (select from turn) then '-infinity'
            when t.tier_oldest is null then least(t.oldest_at, c.oldest_at)
            else least((t.tier_oldest ->> k.id::text)::timestamptz, c.oldest_at)
        end as since
    from llmjobs_tier as k
    left join turn as t on true
    left join change as c on c.tier_id = k.id
), old as materialized (
    select k.id as tier_id, j.pool_id, j.client_id, min(j.available_at) as since, count(*) as jobs
    from tier as k
    cross join lateral (
        select pool_id, client_id, available_at
        from llmjobs_job
        where tier_id = k.id and state = 'queued' and attempt >= 0 and available_at >= k.since
            and available_at < statement_timestamp() - make_interval(secs => least(%(no_worker_s)s, %(stay)s * k.target_s))
        order by available_at
        limit {rows}
    ) as j
    group by k.id, j.pool_id, j.client_id
), behind as materialized (
    select l.tier_id, l.pool_id, f.client_id, min(j.available_at) as since, count(*) as jobs
    from tier as k
    cross join lateral (
        select tier_id, pool_id, flow_id, priority, size, head_order
        from llmjobs_laneturn
        where is_ready and tier_id = k.id and (select sum(jobs) from old where tier_id = k.id) >= {rows}
        order by pool_id, tier_id, level, vt, flow_id, lane_id
        limit {lanes}
    ) as l
    cross join lateral (select client_id from llmjobs_flow where id = l.flow_id limit 1) as f
    cross join lateral (
        select available_at
        from llmjobs_job
        where pool_id = l.pool_id and client_id = f.client_id and priority = l.priority and size = l.size
            and lane_order >= l.head_order and state = 'queued'
        order by lane_order
        limit 1
    ) as j
    where j.available_at < statement_timestamp() - make_interval(secs => least(%(no_worker_s)s, %(stay)s * k.target_s))
        and not exists (select from old as o where (o.tier_id, o.pool_id, o.client_id) = (l.tier_id, l.pool_id, f.client_id))
    group by l.tier_id, l.pool_id, f.client_id
), could_run as materialized (
    select o.tier_id, o.pool_id, o.since, o.jobs
    from (select * from old union all select * from behind) as o
    cross join lateral (select is_paused from llmjobs_client where id = o.client_id limit 1) as c
    left join lateral (select id from llmjobs_flow where pool_id = o.pool_id and client_id = o.client_id limit 1) as f on true
    left join lateral (
        select is_open, running, max_running from llmjobs_flowturn where flow_id = f.id order by turn desc limit 1
    ) as t on true
    left join lateral (
        select greatest(requests_at, tokens_at) - extract(epoch from statement_timestamp()) as full_s
        from llmjobs_bucketturn
        where kind = 2 and of_id = o.client_id
        order by turn desc
        limit 1
    ) as b on true
    where not c.is_paused
        and (
            not exists (select from worker)
            or (
                coalesce(t.is_open, true)
                and coalesce(2 * t.running < t.max_running, true)
                and coalesce(b.full_s < 30, true) -- of a minute
            )
        )
)
select k.id as tier_id, k.name as tier, k.target_s, m.id as pool_id, m.name as model, sum(r.jobs)::bigint as jobs,
    extract(epoch from statement_timestamp() - min(r.since))::float8 as oldest_s,
    exists (
        select
        from worker as w
        where (w.pools = '{}' or m.name = any (w.pools)) and (w.tiers = '{}' or k.name = any (w.tiers))
    ) as is_served,
    exists (select from worker) as are_workers
from could_run as r
join tier as k on k.id = r.tier_id
join llmjobs_model as m on m.id = r.pool_id
join llmjobs_provider as p on p.id = m.provider_id
where not m.is_paused and not p.is_paused
group by k.id, k.name, k.target_s, m.id, m.name
order by oldest_s desc
