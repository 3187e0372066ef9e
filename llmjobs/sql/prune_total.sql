-- Called by: retention, for an operator who asks before anything is removed, or watches.
-- Parameters: age_s: how long ago a job must have finished; younger_than_s: and not so long ago (null: however long ago);
-- key_kept_s: of prune_kept.sql. Literal: {bodies}: 1 where only bodies shall go.
-- Returns: found, kept: how many would go, and how many are past that age and stay for now.
-- Index: job_finished, all of that range.
select count(*) filter (where not f.is_kept) as found, count(*) filter (where f.is_kept) as kept
from (
    select {prune_kept.sql} as is_kept
    from llmjobs_job as j
    where j.finished_at < statement_timestamp() - make_interval(secs => %(age_s)s)
        and (
            %(younger_than_s)s::float8 is null
            or j.finished_at >= statement_timestamp() - make_interval(secs => %(younger_than_s)s::float8)
        )
        and ({bodies} = 0 or coalesce((select r.body <> '' from llmjobs_jobrequest as r where r.job_id = j.id), false))
) as f
