-- Called by: stats.queue_stats, for all clients.
-- Literal: {clients}, the most clients told of, the largest.
-- Returns: a row a tier, priority and state with its jobs; `submitted` is a state, of all jobs that ever were. And a
-- row a client with its jobs, without state.
-- Why the order of the changes: else the planner may walk all of the index of clients for them, dead entries too.
-- Index: jobcount_grain (client_id is null: some dozens), jobcount_largest, the primary key of the changes from the
-- bound on: what was not counted yet, a second's worth.
with change as materialized (
    select client_id, tier_id, priority, state, jobs, is_submit
    from llmjobs_jobcountchange
    where id >= coalesce((select bound_id from llmjobs_jobcountturn order by turn desc limit 1), 0)
    order by id
), state as (
    select tier_id, priority, state, sum(jobs)::bigint as jobs
    from (
        select tier_id, priority, state, jobs from llmjobs_jobcount where client_id is null
        union all
        select tier_id, priority, state, jobs from change
        union all
        select tier_id, priority, 'submitted', jobs from change where is_submit
    ) as s
    group by tier_id, priority, state
), changed as materialized (
    select client_id, sum(jobs)::bigint as jobs
    from change
    group by client_id
    having sum(jobs) <> 0
), largest as materialized (
    select client_id, jobs
    from llmjobs_jobcount
    where client_id is not null and tier_id is null
    order by jobs desc
    limit {clients}
), client as (
    select l.client_id, l.jobs + coalesce(c.jobs, 0) as jobs
    from largest as l
    left join changed as c on c.client_id = l.client_id
    union all
    select c.client_id, c.jobs + coalesce((
        select t.jobs
        from llmjobs_jobcount as t
        where t.client_id = c.client_id and t.tier_id is null and t.priority is null and t.state is null
    ), 0)
    from changed as c
    where c.client_id not in (select client_id from largest)
)
select null as client, (select t.name from llmjobs_tier as t where t.id = s.tier_id) as tier, s.priority, s.state,
    s.jobs
from state as s
where s.jobs <> 0
union all
(
    select (select c.name from llmjobs_client as c where c.id = t.client_id), null, null, null, t.jobs
    from client as t
    where t.jobs > 0
    order by t.jobs desc
    limit {clients}
)
