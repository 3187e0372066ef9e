-- Called by: usage.of_month.
-- Parameters: client; month: the first day of one, or null: this month.
-- Returns one row, of the client: month (its first day, UTC), spent in it; expected: what its jobs that are not over are
-- expected to cost, 0 in another month than this one; queued and delayed jobs, their estimated tokens, running jobs.
-- Locks: nothing. Index: spending_of_month, jobcount_grain, jobcountchange_of_client: counts, whatever the backlog.
with asked as (
    select m.month as this_month, coalesce(%(month)s::date, m.month) as month, m.spent, m.reserved
    from llmjobs_money(%(client)s) as m
)
select a.month,
    case
        when a.month = a.this_month then a.spent
        else coalesce((
            select s.usd from llmjobs_spending as s where s.client_id = %(client)s and s.month = a.month), 0)
    end as spent,
    case when a.month = a.this_month then a.reserved else 0 end as expected,
    w.jobs as queued, w.tokens as queued_tokens,
    (
        select coalesce(sum(r.jobs), 0)
        from (
            select c.jobs from llmjobs_jobcount as c where c.client_id = %(client)s and c.state = 'running'
            union all
            select d.jobs
            from llmjobs_jobcountchange as d
            where d.client_id = %(client)s and d.state = 'running'
                and d.id >= coalesce((select bound_id from llmjobs_jobcountturn order by turn desc limit 1), 0)
        ) as r
    )::bigint as running
from asked as a
cross join llmjobs_waiting(%(client)s) as w
