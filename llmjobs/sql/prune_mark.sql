-- Called by: retention, last in its transaction.
-- Parameters: jobs_to, bodies_to (null: nothing new): what finished before is gone; is_back: something from then is still
-- there, so that who comes next begins with it; open_s: a transaction that is open for so long may still bring a job that
-- finished before its commit, so nobody passes that.
-- Locks: the one row.
with passable as (
    select statement_timestamp() - make_interval(secs => %(open_s)s) as at
)
insert into llmjobs_retention as r (id, jobs_gone_to, bodies_gone_to, looked_at)
select 1, case when %(jobs_to)s::timestamptz is not null then least(%(jobs_to)s::timestamptz, at) end,
    case when %(bodies_to)s::timestamptz is not null then least(%(bodies_to)s::timestamptz, at) end, statement_timestamp()
from passable
on conflict (id) do update set
    jobs_gone_to = case
        when %(is_back)s then coalesce(excluded.jobs_gone_to, r.jobs_gone_to)
        else greatest(r.jobs_gone_to, excluded.jobs_gone_to)
    end,
    bodies_gone_to = case
        when %(is_back)s then coalesce(excluded.bodies_gone_to, r.bodies_gone_to)
        else greatest(r.bodies_gone_to, excluded.bodies_gone_to)
    end,
    looked_at = excluded.looked_at
