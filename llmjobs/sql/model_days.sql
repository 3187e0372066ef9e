-- Called by: tallies.model_days.
-- Parameters: pool; days: how many, today (UTC) the last.
-- Returns: a row a day, the oldest first, days on which nothing was used too. Index: tally_grain, a probe a day.
select g.at::date, coalesce(d.jobs, 0)::bigint, coalesce(d.attempts, 0)::bigint, coalesce(d.input_tokens, 0)::bigint,
    coalesce(d.output_tokens, 0)::bigint, coalesce(d.usd, 0)
from (select date_trunc('day', statement_timestamp() at time zone 'UTC') as today) as n
cross join lateral generate_series(n.today - interval '1 day' * (%(days)s - 1), n.today, interval '1 day') as g (at)
left join lateral (
    select sum(number) filter (where of = 'job' and word = 'submitted') as jobs,
        sum(number) filter (where of = 'attempt') as attempts, sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens, sum(usd) as usd
    from llmjobs_tally
    where period_s = 86400 and at = g.at at time zone 'UTC' and pool_id = %(pool)s
) as d on true
order by g.at
