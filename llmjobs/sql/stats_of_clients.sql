-- Called by: stats.queue_stats, for some clients.
-- Parameters: client_ids (array).
-- Returns: as stats.sql does, of these clients alone.
-- Index: jobcount_grain; jobcountchange_of_client from the bound on: what was not counted yet.
with part as materialized (
    select client_id, tier_id, priority, state, jobs
    from llmjobs_jobcount
    where client_id = any (%(client_ids)s::bigint[]) and state is not null
    union all
    select c.client_id, c.tier_id, c.priority, s.state, c.jobs
    from llmjobs_jobcountchange as c
    cross join lateral (select c.state union all select 'submitted' where c.is_submit) as s
    where c.client_id = any (%(client_ids)s::bigint[])
        and c.id >= coalesce((select bound_id from llmjobs_jobcountturn order by turn desc limit 1), 0)
)
select null as client, (select t.name from llmjobs_tier as t where t.id = p.tier_id) as tier, p.priority, p.state,
    sum(p.jobs)::bigint as jobs
from part as p
group by p.tier_id, p.priority, p.state
having sum(p.jobs) <> 0
union all
select (select c.name from llmjobs_client as c where c.id = p.client_id), null, null, null, sum(p.jobs)::bigint
from part as p
where p.state <> 'submitted'
group by p.client_id
having sum(p.jobs) > 0
