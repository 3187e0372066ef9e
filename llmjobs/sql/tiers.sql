-- Included by: tiers_now.sql and sample_tiers.sql.
-- Returns: of each tier its id, how many of its jobs are queued, running and scheduled, and since when its oldest queued
-- job waits. Exact: from counts and the changes since, as stats.sql, and never a walk over jobs.
-- Index: jobcount_grain (client_id is null: some dozens), the primary key of changes from the bound on, and
-- job_queued_of_tier from where the last count found the oldest of the tier, or from where one became queued since then.
select t.id as tier_id, coalesce(n.queued, 0) as queued, coalesce(n.running, 0) as running, coalesce(n.scheduled, 0) as scheduled,
    o.oldest_at
from (
    select bound_id, oldest_at, tier_oldest, turn is not null as is_counted
    from (select) as one
    left join (select * from llmjobs_jobcountturn order by turn desc limit 1) as l on true
) as turn
cross join llmjobs_tier as t
left join lateral (
    select
        greatest(sum(c.jobs) filter (where c.state = 'queued'), 0)::bigint as queued,
        greatest(sum(c.jobs) filter (where c.state = 'running'), 0)::bigint as running,
        greatest(sum(c.jobs) filter (where c.state = 'scheduled'), 0)::bigint as scheduled,
        min(c.oldest_at) as oldest_at
    from (
        select state, jobs, null::timestamptz as oldest_at
        from llmjobs_jobcount
        where client_id is null and tier_id = t.id
        union all
        select d.state, d.jobs, d.oldest_at
        from (
            select * from llmjobs_jobcountchange where id >= coalesce(turn.bound_id, 0) order by id
        ) as d
        where d.tier_id = t.id
    ) as c
) as n on true
left join lateral (
    select least(available_at, statement_timestamp()) as oldest_at
    from llmjobs_job
    where state = 'queued' and attempt >= 0 and tier_id = t.id and available_at >= case
        when not turn.is_counted then '-infinity'
        when turn.tier_oldest is null then least(turn.oldest_at, n.oldest_at)
        else least((turn.tier_oldest ->> t.id::text)::timestamptz, n.oldest_at)
    end
    order by available_at
    limit 1
) as o on true
