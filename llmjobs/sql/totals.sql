-- Called by: tallies.totals.
-- Parameters: named: the models that are told by name (text array), null: all; others: what all others are called.
-- Returns: what happened since for ever, by tier and model: tier, model, of (job or attempt), word, number, input_tokens,
-- output_tokens, usd. What belongs to a tier or model that is gone stands under the empty name, so that no sum falls.
-- Index: tally_grain.
with model as materialized (
    select id, case when %(named)s::text[] is null or name = any (%(named)s::text[]) then name else %(others)s::text end as name
    from llmjobs_model
)
select coalesce(t.name, '') as tier, coalesce(m.name, '') as model, s.of, s.word, sum(s.number)::bigint as number,
    sum(s.input_tokens)::bigint as input_tokens, sum(s.output_tokens)::bigint as output_tokens, sum(s.usd) as usd
from llmjobs_tally as s
left join llmjobs_tier as t on t.id = s.tier_id
left join model as m on m.id = s.pool_id
where s.period_s = 0
group by 1, 2, 3, 4
order by 1, 2, 3, 4
