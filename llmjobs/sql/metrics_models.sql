-- Called by: monitoring.reading, at a scrape.
-- Parameters: default_rpm, default_tpm: of a model without limits; told_s: how long what the provider said of one holds.
-- Literal: {rows}, the most models that get a label of their own.
-- Returns: name, is_paused (it or its provider), blocked_by, rpm and tpm (in force), used_rpm and used_tpm (of the last
-- minute), requests (reserved since it was made), queued, running (as last folded). Then one row without name: the others'
-- requests, queued and running together, where there are others.
-- Which have labels must not change from scrape to scrape, or counters would seem to begin anew: those that operators made,
-- then those made on their first use, the older first.
-- A pool's last sample before the last minute says how it stood a minute ago, since one that nobody uses gets none.
-- Locks: nothing. Index: the primary keys of turns and samples, three probes a model.
with pool as materialized (
    select m.id, m.name, m.is_paused or p.is_paused as is_paused, coalesce(a.blocked_by, b.blocked_by) as blocked_by,
        least(coalesce(m.rpm, %(default_rpm)s), case when b.is_told then b.requests_limit end)::float8 as rpm,
        least(coalesce(m.tpm, %(default_tpm)s), case when b.is_told then b.tokens_limit end)::float8 as tpm,
        coalesce(b.requests, 0) as requests, coalesce(b.tokens, 0) as tokens,
        coalesce(b.queued, 0) as queued, coalesce(b.running, 0) as running,
        row_number() over (order by m.made_for_id is not null, m.id) as place
    from llmjobs_model as m
    join llmjobs_provider as p on p.id = m.provider_id
    left join lateral (
        select requests, tokens, queued, running, requests_limit, tokens_limit,
            told_at > extract(epoch from statement_timestamp()) - %(told_s)s as is_told,
            case when blocked_by <> 'rate_limit' or blocked_until > extract(epoch from statement_timestamp())
                then blocked_by end as blocked_by
        from llmjobs_bucketturn
        where kind = 0 and of_id = m.id
        order by turn desc
        limit 1
    ) as b on true
    left join lateral (
        select case when blocked_by <> 'rate_limit' or blocked_until > extract(epoch from statement_timestamp())
                then blocked_by end as blocked_by
        from llmjobs_bucketturn
        where kind = 1 and of_id = m.provider_id
        order by turn desc
        limit 1
    ) as a on true
)
select p.name, p.is_paused, p.blocked_by, p.rpm, p.tpm,
    greatest(p.requests - s.requests, 0) * 60 / s.for_s as used_rpm,
    greatest(p.tokens - s.tokens, 0) * 60 / s.for_s as used_tpm,
    p.requests::float8 as requests, p.queued::float8 as queued, p.running::float8 as running
from pool as p
left join lateral (
    select requests, tokens, least(extract(epoch from statement_timestamp() - at), 75)::float8 as for_s
    from llmjobs_poolsample
    where pool_id = p.id and at <= statement_timestamp() - interval '60 s'
    order by at desc
    limit 1
) as s on true
where p.place <= {rows}
union all
select null, null, null, null, null, null, null, sum(requests)::float8, sum(queued)::float8, sum(running)::float8
from pool
where place > {rows}
having count(*) > 0
