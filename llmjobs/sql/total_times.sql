-- Called by: tallies.totals.
-- Parameters: named, others: as in totals.sql.
-- Returns: how long it took since for ever, by tier and model: tier, model, measure, and the histogram's buckets as arrays
-- of bounds, numbers and sums. Index: tallytime_grain.
with model as materialized (
    select id, case when %(named)s::text[] is null or name = any (%(named)s::text[]) then name else %(others)s::text end as name
    from llmjobs_model
)
select tier, model, measure, array_agg(le_s) as bounds, array_agg(number) as numbers, array_agg(sum_s) as sums
from (
    select coalesce(t.name, '') as tier, coalesce(m.name, '') as model, s.measure, s.le_s, sum(s.number)::bigint as number,
        sum(s.sum_s) as sum_s
    from llmjobs_tallytime as s
    left join llmjobs_tier as t on t.id = s.tier_id
    left join model as m on m.id = s.pool_id
    where s.period_s = 0
    group by 1, 2, 3, 4
) as s
group by tier, model, measure
order by tier, model, measure
