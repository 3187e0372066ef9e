-- Called by: watch.
-- Parameters: for_s: for how long a rate limit has blocked it, every time that somebody looked; sample_s: how often samples
-- are taken while jobs wait.
-- Returns: pool_id, model, provider_id, provider, queued, left_s (until when the provider asked to wait).
-- Samples are taken by workers, each some seconds while jobs wait: the latest before that time and all since say the same.
-- Index: the primary keys of turns and samples, a probe a model; samples of those that are blocked now.
select m.id as pool_id, m.name as model, p.id as provider_id, p.name as provider, b.queued,
    (b.blocked_until - extract(epoch from statement_timestamp()))::float8 as left_s
from llmjobs_model as m
join llmjobs_provider as p on p.id = m.provider_id
cross join lateral (
    select blocked_by, blocked_until, queued
    from llmjobs_bucketturn
    where kind = 0 and of_id = m.id
    order by turn desc
    limit 1
) as b
cross join lateral (
    select blocked_by, at
    from llmjobs_poolsample
    where pool_id = m.id and at <= statement_timestamp() - make_interval(secs => %(for_s)s)
    order by at desc
    limit 1
) as s
where not m.is_paused and not p.is_paused
    and b.blocked_by = 'rate_limit' and b.blocked_until > extract(epoch from statement_timestamp()) and b.queued > 0
    and s.blocked_by = 'rate_limit' and s.at > statement_timestamp() - make_interval(secs => %(for_s)s + 4 * %(sample_s)s)
    and not exists (
        select
        from llmjobs_poolsample
        where pool_id = m.id and at > statement_timestamp() - make_interval(secs => %(for_s)s)
            and blocked_by is distinct from 'rate_limit'
    )
