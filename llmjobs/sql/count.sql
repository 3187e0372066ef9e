-- Called by: counts.count and counts.help_count, second in their transaction, by one at a time.
-- Parameters: is_sweep: take changes behind the bound too.
-- Literal: {rows}, the most changes taken at once.
-- Returns: taken (changes), more (there may be further ones).
-- Moves changes into the counts, at three grains, and into what was spent in a month, and finds anew since when the
-- oldest queued job of each tier waits: from where it was on, or from the oldest that a change brought, so that jobs that
-- left before are not walked again.
-- Why a bound: deleted rows stay in the index until no snapshot needs them; behind the bound nobody walks them. A
-- transaction that took longer than that is taken by the next sweep, ten seconds later at most; submits never are.
-- Why by ctid: exact, because one counts at a time and nobody changes a row that has committed.
-- Index: the primary keys of changes and turns, jobcount_grain, spending_of_month, job_queued_of_tier.
with turn as materialized (
    select ctid as row, *
    from llmjobs_jobcountturn
    order by turn desc
    limit 1
), taken as materialized (
    select ctid as row, *
    from llmjobs_jobcountchange
    where id >= case when %(is_sweep)s then 0 else coalesce((select bound_id from turn), 0) end
    order by id
    limit {rows}
), gone as (
    delete from llmjobs_jobcountchange where ctid = any (array(select row from taken))
), sums as (
    select client_id, tier_id, priority, state, sum(jobs) as jobs, sum(tokens) as tokens, sum(usd) as usd
    from (
        select client_id, tier_id, priority, state, jobs, tokens, usd from taken where state <> 'spent'
        union all
        select client_id, tier_id, priority, 'submitted', jobs, tokens, usd from taken where is_submit
    ) as t
    group by grouping sets ((client_id, tier_id, priority, state), (tier_id, priority, state))
    union all
    select client_id, null, null, null, sum(jobs), sum(tokens), sum(usd)
    from taken
    where state <> 'spent'
    group by client_id
), counted as (
    insert into llmjobs_jobcount as c (client_id, tier_id, priority, state, jobs, tokens, usd)
    select client_id, tier_id, priority, state, jobs, tokens, usd
    from sums
    where jobs <> 0 or tokens <> 0 or usd <> 0
    on conflict (client_id, tier_id, priority, state) do update
    set jobs = c.jobs + excluded.jobs, tokens = c.tokens + excluded.tokens, usd = c.usd + excluded.usd
), spent as (
    insert into llmjobs_spending as s (client_id, month, usd)
    select client_id, month, sum(usd)
    from taken
    where state = 'spent'
    group by client_id, month
    on conflict (client_id, month) do update
    set usd = s.usd + excluded.usd
), brought as materialized (
    select tier_id, min(oldest_at) as oldest_at from taken group by tier_id
), oldest as materialized (
    -- By tier, from where each was. An older worker's turn says only since when the oldest of all waits.
    select jsonb_object_agg(t.id, o.oldest_at) as by_tier, min(o.oldest_at) as oldest_at
    from llmjobs_tier as t
    left join lateral (
        select available_at as oldest_at
        from llmjobs_job
        where state = 'queued' and attempt >= 0 and tier_id = t.id and available_at >= case
            when not exists (select from turn) then '-infinity'
            when (select tier_oldest from turn) is null
            then least((select oldest_at from turn), (select min(oldest_at) from brought))
            else least(
                ((select tier_oldest from turn) ->> t.id::text)::timestamptz,
                (select oldest_at from brought where tier_id = t.id))
        end
        order by available_at
        limit 1
    ) as o on true
), next as materialized (
    select
        coalesce(t.turn, 0) + 1 as turn,
        greatest(coalesce(t.counted_to, 0), (select max(id) from taken)) as counted_to,
        coalesce(t.bound_id, 0) as bound_id,
        coalesce(t.next_bound_id, 0) as next_bound_id,
        coalesce(t.next_bound_at, statement_timestamp()) as next_bound_at,
        coalesce(t.next_bound_at < statement_timestamp() - interval '2 s', false) as is_next_bound,
        case when %(is_sweep)s or t.turn is null then statement_timestamp() else t.swept_at end as swept_at
    from (select) as one
    left join turn as t on true
    where %(is_sweep)s or exists (select from taken)
), turn_gone as (
    delete from llmjobs_jobcountturn where ctid = any (array(select row from turn)) and exists (select from next)
), turn_new as (
    insert into llmjobs_jobcountturn (
        turn, counted_to, counted_at, bound_id, next_bound_id, next_bound_at, swept_at, oldest_at, tier_oldest)
    select turn, counted_to, statement_timestamp(),
        case when is_next_bound then next_bound_id else bound_id end,
        case when is_next_bound then counted_to else next_bound_id end,
        case when is_next_bound then statement_timestamp() else next_bound_at end,
        swept_at, (select oldest_at from oldest), (select by_tier from oldest)
    from next
)
select count(*)::int as taken, count(*) >= {rows} as more
from taken
