-- Called by: admin/job_filters.py, to bound a list of jobs by the time at which they were created.
-- Parameters: at (timestamptz).
-- Returns: the least id of the jobs created at that time or later; one above all, if there are none.
-- Locks: nothing.
-- Index: the primary key, two look-ups a step. created_at has none of its own, which each claim and settle would write
-- anew; but ids rise with it, so that 21 halvings find the place among a million jobs, in less than a millisecond.
with recursive halves as (
    select coalesce(min(id), 0) as low, coalesce(max(id), 0) + 1 as high -- the answer is one of low..high
    from llmjobs_job
    union all
    select case when is_early then at_least + 1 else low end, case when is_early then high else middle end
    from halves
    cross join lateral (select (low + high) / 2 as middle) as m
    cross join lateral (
        select coalesce(next.id, high) as at_least, coalesce(next.created_at < %(at)s::timestamptz, false) as is_early
        from (select 1) as one
        left join lateral (
            select id, created_at from llmjobs_job where id >= middle and id < high order by id limit 1
        ) as next on true
    ) as n
    where low < high
)
select low
from halves
where low >= high
limit 1
