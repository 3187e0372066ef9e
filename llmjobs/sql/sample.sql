-- Called by: samples.sample, second in its transaction, by one at a time.
-- Parameters: every_s: a pool whose last sample is younger is left alone; keep_s: how long samples are kept; told_s: how
-- long what the provider said of a limit holds; default_rpm, default_tpm: of a model without limits.
-- Literal: {rows}, the most that are deleted of a pool.
-- Returns: taken, deleted (samples).
-- Notes what each pool's bucket is like, if it has changed since its last sample, or if jobs wait or run there. So a
-- pool that nobody uses costs nothing, and its last sample says how it was left.
-- Index: the primary keys of turns and samples, a probe each a pool.
with pools as materialized (
    select m.id, b.requests, b.tokens, b.refusals, b.queued, b.running, coalesce(a.blocked_by, b.blocked_by) as blocked_by,
        least(coalesce(m.rpm, %(default_rpm)s), case when b.is_told then b.requests_limit end)::float8 as rpm,
        least(coalesce(m.tpm, %(default_tpm)s), case when b.is_told then b.tokens_limit end)::float8 as tpm
    from llmjobs_model as m
    cross join lateral (
        select *, told_at > extract(epoch from statement_timestamp()) - %(told_s)s as is_told
        from llmjobs_bucketturn
        where kind = 0 and of_id = m.id
        order by turn desc
        limit 1
    ) as b
    -- A breaker is mostly the account's.
    cross join lateral (
        select blocked_by from llmjobs_bucketturn where kind = 1 and of_id = m.provider_id order by turn desc limit 1
    ) as a
), taken as (
    insert into llmjobs_poolsample (pool_id, at, requests, tokens, refusals, queued, running, rpm, tpm, blocked_by)
    select p.id, statement_timestamp(), p.requests, p.tokens, p.refusals, p.queued, p.running, p.rpm, p.tpm, p.blocked_by
    from pools as p
    left join lateral (
        select * from llmjobs_poolsample where pool_id = p.id order by at desc limit 1
    ) as s on true
    where s.at is null
        or s.at <= statement_timestamp() - make_interval(secs => %(every_s)s)
            and (
                p.queued > 0 or p.running > 0
                or (p.requests, p.tokens, p.refusals, p.queued, p.running, p.rpm, p.tpm, p.blocked_by)
                    is distinct from (s.requests, s.tokens, s.refusals, s.queued, s.running, s.rpm, s.tpm, s.blocked_by)
            )
    returning pool_id
), deleted as (
    delete from llmjobs_poolsample
    where ctid = any (array(
        select o.row
        from llmjobs_model as m
        cross join lateral (
            select ctid as row
            from llmjobs_poolsample
            where pool_id = m.id and at < statement_timestamp() - make_interval(secs => %(keep_s)s)
            order by at
            limit {rows}
        ) as o
    ))
    returning pool_id
)
select (select count(*) from taken)::int as taken, (select count(*) from deleted)::int as deleted
