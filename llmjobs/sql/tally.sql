-- Called by: tallying.tally and tallying.help_tally, second in their transaction, by one at a time.
-- Parameters: is_sweep: take changes behind the bound too; bounds (float8 array): of the histograms, in seconds.
-- Literal: {rows}, the most changes taken at once; each is one statement's.
-- Returns: taken (changes), more (there may be further ones).
-- Moves changes into the tallies, at four grains, into the histograms, at three, and into the clients' days. What happened
-- belongs to the moment of its statement, also if that committed minutes later.
-- Why a bound: deleted rows stay in the index until no snapshot needs them; behind the bound nobody walks them. What
-- committed later than that is taken by the next sweep, ten seconds later at most. That has a bound of its own: once all
-- transactions that were open when `bound_id` was noted have ended, and their rows are taken, none is left behind it.
-- Why by ctid: exact, because one folds at a time and nobody changes a row that has committed.
-- Locks: the rows that it adds to, which nobody else writes. Index: the primary key of changes, tally_grain,
-- tallytime_grain, clientday_of_day.
with mark as materialized (
    select * from llmjobs_tallymark where id = 1
), taken as materialized (
    select ctid as row, *
    from llmjobs_tallychange
    where id >= coalesce((select case when %(is_sweep)s then sweep_from else bound_id end from mark), 0)
    order by id
    limit {rows}
), gone as (
    delete from llmjobs_tallychange where ctid = any (array(select row from taken))
), happened as materialized (
    select date_bin('1 minute', t.at, 'epoch') as at, t.of, u.*
    from taken as t
    cross join lateral unnest(
        t.pools, t.tiers, t.clients, t.words, t.waits_s, t.runs_s, t.first_tokens_s, t.input_tokens, t.output_tokens, t.usd
    ) as u (pool_id, tier_id, client_id, word, wait_s, run_s, first_token_s, input_tokens, output_tokens, usd)
), grains as (
    select *
    from (values
        (0, null, true, true), (60, interval '1 minute', false, true), (600, interval '10 minutes', false, true),
        (86400, interval '1 day', true, false)
    ) as g (period_s, width, by_pool, by_tier)
), sums as materialized (
    select at, pool_id, tier_id, of, word, count(*) as number, coalesce(sum(input_tokens), 0) as input_tokens,
        coalesce(sum(output_tokens), 0) as output_tokens, coalesce(sum(usd), 0) as usd
    from happened
    group by at, pool_id, tier_id, of, word
), tallied as (
    insert into llmjobs_tally as t (period_s, at, pool_id, tier_id, of, word, number, input_tokens, output_tokens, usd)
    select g.period_s, coalesce(date_bin(g.width, s.at, 'epoch'), 'epoch'), case when g.by_pool then s.pool_id end,
        case when g.by_tier then s.tier_id end, s.of, s.word, sum(s.number), sum(s.input_tokens), sum(s.output_tokens), sum(s.usd)
    from sums as s
    cross join grains as g
    group by 1, 2, 3, 4, 5, 6
    on conflict (period_s, at, pool_id, tier_id, of, word) do update
    set number = t.number + excluded.number, input_tokens = t.input_tokens + excluded.input_tokens,
        output_tokens = t.output_tokens + excluded.output_tokens, usd = t.usd + excluded.usd
), times as materialized (
    select h.at, h.pool_id, h.tier_id, m.measure,
        coalesce((%(bounds)s::float8[])[width_bucket(m.took_s, %(bounds)s::float8[]) + 1], 'infinity') as le_s,
        count(*) as number, sum(greatest(m.took_s, 0)) as sum_s
    from happened as h
    cross join lateral (values ('wait', h.wait_s), ('run', h.run_s), ('first_token', h.first_token_s)) as m (measure, took_s)
    where m.took_s is not null
    group by 1, 2, 3, 4, 5
), timed as (
    insert into llmjobs_tallytime as t (period_s, at, pool_id, tier_id, measure, le_s, number, sum_s)
    select g.period_s, coalesce(date_bin(g.width, s.at, 'epoch'), 'epoch'), case when g.period_s = 0 then s.pool_id end,
        case when g.period_s = 0 then s.tier_id end, s.measure, s.le_s, sum(s.number), sum(s.sum_s)
    from times as s
    cross join grains as g
    where g.period_s < 86400
    group by 1, 2, 3, 4, 5, 6
    on conflict (period_s, at, pool_id, tier_id, measure, le_s) do update
    set number = t.number + excluded.number, sum_s = t.sum_s + excluded.sum_s
), days as (
    insert into llmjobs_clientday as d (client_id, day, jobs, attempts, input_tokens, output_tokens, usd)
    select client_id, (at at time zone 'UTC')::date, count(*) filter (where of = 'job'), count(*) filter (where of = 'attempt'),
        coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(usd), 0)
    from happened
    where client_id is not null
    group by 1, 2
    on conflict (day, client_id) do update
    set jobs = d.jobs + excluded.jobs, attempts = d.attempts + excluded.attempts,
        input_tokens = d.input_tokens + excluded.input_tokens, output_tokens = d.output_tokens + excluded.output_tokens,
        usd = d.usd + excluded.usd
), next as (
    select greatest(coalesce(m.folded_to, 0), (select max(id) from taken)) as folded_to,
        coalesce(m.next_bound_at < statement_timestamp() - interval '2 s', true) as is_due, x.next_xid,
        coalesce(
            case
                when %(is_sweep)s and (select count(*) from taken) < {rows} and x.oldest_xid >= m.bound_xid then m.bound_id
                else m.sweep_from
            end, 0) as sweep_from
    from (
        select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest_xid,
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next_xid
    ) as x
    left join mark as m on true
    where %(is_sweep)s or exists (select from taken)
), marked as (
    insert into llmjobs_tallymark as m (id, folded_to, next_bound_id, next_bound_xid)
    select 1, folded_to, folded_to, next_xid
    from next
    on conflict (id) do update
    set folded_to = excluded.folded_to, folded_at = statement_timestamp(),
        bound_id = case when (select is_due from next) then m.next_bound_id else m.bound_id end,
        bound_xid = case when (select is_due from next) then m.next_bound_xid else m.bound_xid end,
        next_bound_id = case when (select is_due from next) then excluded.folded_to else m.next_bound_id end,
        next_bound_xid = case when (select is_due from next) then excluded.next_bound_xid else m.next_bound_xid end,
        next_bound_at = case when (select is_due from next) then statement_timestamp() else m.next_bound_at end,
        sweep_from = (select sweep_from from next),
        swept_at = case when %(is_sweep)s then statement_timestamp() else m.swept_at end
)
select count(*)::int as taken, count(*) >= {rows} as more
from taken
