-- Called by: queue.stage, a duty of every worker.
-- Parameters: share, least_per_s: how many retries a pool may have; more_s_max: the longest that one is held back for at
-- once. Literal: {rows}, the most at once.
-- Returns: id, client_id, seq, state of the scheduled jobs whose time has come, queued now at their old place; and a row
-- without an id whose seq is how many were looked at.
-- Retries after a failure of the provider's have a budget, so that a storm of them does not keep a pool down: in ten seconds,
-- least_per_s each, or a share of what the pool completed then if that is more, less what was made and what is queued. The
-- others wait some seconds more: they must not stand before what is due in other pools. Not held back is a retry after a lost
-- lease, of which the provider knows nothing, and one whose time for retries is over.
-- Locks: the jobs, SKIP LOCKED, so that no two workers wait for each other. What two stage at once may exceed the budget by
-- one batch. Index: job_scheduled; attempt_of_job; where retries are due, attempt_of_pool for ten seconds, job_retrying.
with due as materialized (
    select id, pool_id, attempt, failures, available_at, retry_until
    from llmjobs_job
    where state = 'scheduled' and available_at <= statement_timestamp()
    order by available_at
    limit {rows}
    for no key update skip locked
), asked as materialized (
    select d.*,
        d.failures > 0 and d.retry_until > statement_timestamp() and a.outcome is distinct from 'lost' as is_budgeted
    from due as d
    left join lateral (
        select outcome from llmjobs_attempt where job_id = d.id and number = d.attempt limit 1
    ) as a on d.failures > 0
), budgets as materialized (
    select p.pool_id,
        greatest(10 * %(least_per_s)s::float8, %(share)s::float8 * s.completed) - s.retries - q.waiting as room
    from (select distinct pool_id from asked where is_budgeted) as p
    cross join lateral (
        select count(*) filter (where outcome = 'completed') as completed, count(*) filter (where is_retry) as retries
        from (
            select outcome, is_retry
            from llmjobs_attempt
            where pool_id = p.pool_id and claimed_at > statement_timestamp() - interval '10 s'
            order by claimed_at desc
            limit 10000
        ) as a
    ) as s
    cross join lateral (
        select count(*) as waiting
        from (
            -- Of the last ten seconds too: who waits for longer can't run (its client is paused, or at its limits).
            select
            from llmjobs_job
            where pool_id = p.pool_id and state = 'queued' and failures > 0
                and available_at > statement_timestamp() - interval '10 s'
            limit 10000
        ) as j
    ) as q
), chosen as materialized (
    select a.id, a.is_budgeted, not a.is_budgeted or a.nth <= b.room as is_staged,
        least(1 + (a.nth - greatest(b.room, 0)) / greatest(%(least_per_s)s::float8, 1), %(more_s_max)s) as more_s
    from (
        select id, pool_id, is_budgeted, row_number() over (partition by pool_id, is_budgeted order by available_at, id) as nth
        from asked
    ) as a
    left join budgets as b on b.pool_id = a.pool_id
), held_back as (
    update llmjobs_job as j
    set available_at = statement_timestamp() + make_interval(secs => c.more_s)
    from chosen as c
    where j.id = c.id and not c.is_staged
), moved as materialized (
    update llmjobs_job as j
    set state = 'queued',
        epoch = j.epoch + 1,
        -- From when the budget has it: it may have been due for long.
        available_at = case when c.is_budgeted then statement_timestamp() else j.available_at end
    from chosen as c
    where j.id = c.id and c.is_staged
    returning j.*
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued, head_order, head_at)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, count(*), min(m.lane_order), min(m.available_at)
    from moved as m
    join llmjobs_model as p on p.id = m.pool_id
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'status', jsonb_build_object('status', 'queued', 'attempt', attempt)
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, state
from moved
union all
select null, null, count(*), null
from due
