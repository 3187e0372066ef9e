-- Called by: tallies.moments and tallies.summary.
-- Parameters: period_s: of one moment, 60 or 600; points: how many moments, the last one not over yet.
-- Returns: a row a moment, the oldest first: at, what happened to jobs and attempts, tokens, dollars, tokens by tier, and of
-- waits and runs the histogram's buckets as arrays of bounds, numbers and sums. Nulls: nothing happened then.
-- Index: tally_grain and tallytime_grain, a probe a moment each, for some dozen rows.
select g.at, s.submitted::bigint, s.started::bigint, s.completed::bigint, s.failed::bigint, s.dead::bigint, s.cancelled::bigint,
    s.expired::bigint, s.attempts::bigint, s.retries::bigint, s.lease_lost::bigint, s.refusals::bigint, s.input_tokens::bigint,
    s.output_tokens::bigint, s.usd, u.by_tier, w.bounds, w.numbers, w.sums, r.bounds, r.numbers, r.sums
from (select make_interval(secs => %(period_s)s) as width) as p
cross join lateral (select date_bin(p.width, statement_timestamp(), 'epoch') as last) as l
cross join lateral generate_series(l.last - p.width * (%(points)s - 1), l.last, p.width) as g (at)
cross join lateral (
    select
        sum(number) filter (where of = 'job' and word = 'submitted') as submitted,
        sum(number) filter (where of = 'job' and word in ('started', 'retried')) as started,
        sum(number) filter (where of = 'job' and word = 'completed') as completed,
        sum(number) filter (where of = 'job' and word = 'failed') as failed,
        sum(number) filter (where of = 'job' and word = 'dead') as dead,
        sum(number) filter (where of = 'job' and word = 'cancelled') as cancelled,
        sum(number) filter (where of = 'job' and word = 'expired') as expired,
        sum(number) filter (where of = 'attempt') as attempts,
        sum(number) filter (where of = 'job' and word = 'retried') as retries,
        sum(number) filter (where of = 'attempt' and word = 'lost') as lease_lost,
        sum(number) filter (where of = 'attempt' and word = 'rate_limited') as refusals,
        sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens, sum(usd) as usd
    from llmjobs_tally
    where period_s = %(period_s)s and at = g.at
) as s
cross join lateral (
    select json_object_agg(t.name, i.tokens) as by_tier
    from (
        select tier_id, sum(input_tokens + output_tokens)::bigint as tokens
        from llmjobs_tally
        where period_s = %(period_s)s and at = g.at and of = 'attempt'
        group by tier_id
    ) as i
    join llmjobs_tier as t on t.id = i.tier_id
) as u
cross join lateral (
    select array_agg(le_s) as bounds, array_agg(number) as numbers, array_agg(sum_s) as sums
    from llmjobs_tallytime
    where period_s = %(period_s)s and at = g.at and measure = 'wait'
) as w
cross join lateral (
    select array_agg(le_s) as bounds, array_agg(number) as numbers, array_agg(sum_s) as sums
    from llmjobs_tallytime
    where period_s = %(period_s)s and at = g.at and measure = 'run'
) as r
order by g.at
