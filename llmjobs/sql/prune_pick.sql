-- Called by: retention, second in its transaction, under its advisory lock.
-- Parameters: since, after_id: looked at is what finished later, or then with a larger id (null: from the first on);
-- age_s: how long ago a job must have finished; key_kept_s: of prune_kept.sql.
-- Literal: {rows}, the most jobs; {events}, after so many events of theirs no more jobs, but one at least; {bodies}: 1
-- where only bodies shall go.
-- Returns: id, finished_at, is_kept, has_more (is there anything to remove), is_held (locked, to be removed now), of the
-- jobs looked at, the oldest first.
-- Locks: the jobs, SKIP LOCKED, in the order of their ids. What somebody else holds stays; so does what he left in another
-- state: a job that was requeued has not finished any more, which is asked again once it is locked.
-- Index: job_finished, a range from a known moment on, so that entries of what was removed are not walked again;
-- event_of_job; primary keys.
with seen as materialized (
    select j.id, j.finished_at,
        {prune_kept.sql} as is_kept,
        {bodies} = 0
            or coalesce((select r.body <> '' from llmjobs_jobrequest as r where r.job_id = j.id), false) as has_more
    from llmjobs_job as j
    where j.finished_at is not null
        and (j.finished_at, j.id) > (coalesce(%(since)s::timestamptz, '-infinity'), %(after_id)s)
        and j.finished_at < statement_timestamp() - make_interval(secs => %(age_s)s)
    order by j.finished_at, j.id
    limit {rows}
), bounded as materialized (
    select s.*, sum(e.events) over (order by s.finished_at, s.id) - e.events as events_before
    from seen as s
    cross join lateral (
        select count(*) as events from (select from llmjobs_jobevent where job_id = s.id limit {events}) as up_to
    ) as e
), held as materialized (
    select j.id
    from llmjobs_job as j
    where j.id = any (array(select id from bounded where events_before < {events} and has_more and not is_kept))
        and j.finished_at < statement_timestamp() - make_interval(secs => %(age_s)s)
    order by j.id
    for update skip locked
)
select b.id, b.finished_at, b.is_kept, b.has_more, b.id in (select id from held) as is_held
from bounded as b
where b.events_before < {events}
order by b.finished_at, b.id
