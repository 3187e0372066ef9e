-- Called by: admin.overview.reading.
-- Parameters: default_rpm, default_tpm: of a model without limits; told_s: how long what the provider said of one holds.
-- Literal: {rows}, the most that are told of.
-- Returns: id, name, provider_id, provider, is_paused (it or its provider), blocked_by, blocked_until (Unix clock, of a
-- breaker: when one call is tried), rpm and tpm (in force), queued, running (as last folded); provider_queued: jobs that
-- wait at its provider; models, stopped: of all models, how many there are, and how many of them start nothing. Those
-- that are stopped while jobs wait come first, then those in use.
-- Locks: nothing. Index: the primary keys of the turns, two probes a model.
with pool as materialized (
    select m.id, m.name, p.id as provider_id, p.name as provider, m.is_paused or p.is_paused as is_paused,
        b.queued, b.running, b.moved_at,
        coalesce(a.blocked_by, b.blocked_by) as blocked_by,
        case when a.blocked_by is null then b.blocked_until else a.blocked_until end as blocked_until,
        least(coalesce(m.rpm, %(default_rpm)s), case when b.is_told then b.requests_limit end)::float8 as rpm,
        least(coalesce(m.tpm, %(default_tpm)s), case when b.is_told then b.tokens_limit end)::float8 as tpm
    from llmjobs_model as m
    join llmjobs_provider as p on p.id = m.provider_id
    left join lateral (
        select queued, running, moved_at, requests_limit, tokens_limit,
            told_at > extract(epoch from statement_timestamp()) - %(told_s)s as is_told,
            case when blocked_by <> 'rate_limit' or blocked_until > extract(epoch from statement_timestamp())
                then blocked_by end as blocked_by,
            blocked_until
        from llmjobs_bucketturn
        where kind = 0 and of_id = m.id
        order by turn desc
        limit 1
    ) as b on true
    left join lateral (
        select case when blocked_by <> 'rate_limit' or blocked_until > extract(epoch from statement_timestamp())
                then blocked_by end as blocked_by,
            blocked_until
        from llmjobs_bucketturn
        where kind = 1 and of_id = m.provider_id
        order by turn desc
        limit 1
    ) as a on true
), stopped as (
    select *, is_paused or blocked_by is not null as is_stopped from pool
)
select id, name, provider_id, provider, is_paused, blocked_by, blocked_until, rpm, tpm,
    coalesce(queued, 0) as queued, coalesce(running, 0) as running,
    sum(coalesce(queued, 0)) over (partition by provider_id) as provider_queued,
    count(*) over () as models,
    count(*) filter (where is_stopped) over () as stopped
from stopped
order by is_stopped and coalesce(queued, 0) > 0 desc, coalesce(running, 0) + coalesce(queued, 0) > 0 desc,
    blocked_by is not null desc, coalesce(running, 0) desc, moved_at desc nulls last, name
limit {rows}
