-- Called by: tallies.tiers_now.
-- Returns: of each tier, the heaviest first: name, weight, queued, running, scheduled, for how long its oldest queued job
-- has waited (s), the tokens that its attempts used within the last sixty minutes, their share of all, and the share that
-- its weight gives it among the tiers that used some or have jobs.
-- Index: of tiers.sql; tally_grain, an hour's range of minutes.
select t.name, t.weight, n.queued, n.running, n.scheduled,
    extract(epoch from statement_timestamp() - n.oldest_at)::float8 as oldest_s, coalesce(u.tokens, 0)::bigint as tokens,
    coalesce(u.tokens / nullif(sum(u.tokens) over (), 0), 0)::float8 as share,
    case when a.is_active then t.weight / sum(t.weight) filter (where a.is_active) over () else 0 end as due_share
from ({tiers.sql}) as n
join llmjobs_tier as t on t.id = n.tier_id
left join (
    select tier_id, sum(input_tokens + output_tokens) as tokens
    from llmjobs_tally
    where period_s = 60 and at > statement_timestamp() - interval '1 hour' and of = 'attempt'
    group by tier_id
) as u on u.tier_id = t.id
cross join lateral (select n.queued > 0 or n.running > 0 or coalesce(u.tokens, 0) > 0 as is_active) as a
order by t.weight desc, t.name
