-- Called by: limits, before a submit where the commit is far or a refusal likely, and to say when there will be room.
-- Parameters: client_id; backlog_max; asks_budget, asks_rates: whether these matter.
-- Returns, of the client: jobs and tokens that wait, and the most of each; dollars spent in this month and expected, and
-- its budget; its limits a minute, and what is taken of them (migration 0008). A limit that is not there is null, and
-- so is what nobody asked for. And the jobs of all that wait: no less than do, and exactly once that comes to the bound.
-- Locks: nothing, so another may take the room meanwhile: the commit decides.
select w.jobs, w.tokens, m.spent + m.reserved as usd, k.requests, k.tokens as tokens_a_minute,
    case when b.jobs < %(backlog_max)s then b.jobs else llmjobs_backlog(true) end as backlog,
    coalesce(c.max_queued, t.max_queued) as max_queued,
    coalesce(c.max_queued_tokens, t.max_queued_tokens) as max_queued_tokens,
    c.monthly_budget_usd, coalesce(c.rpm, t.rpm) as rpm, coalesce(c.tpm, t.tpm) as tpm
from llmjobs_client as c
join llmjobs_tier as t on t.id = c.tier_id
cross join lateral llmjobs_waiting(c.id) as w
cross join llmjobs_backlog(false) as b (jobs)
left join lateral (
    select * from llmjobs_money(c.id) where %(asks_budget)s and c.monthly_budget_usd is not null
) as m on true
left join lateral (
    select * from llmjobs_taken(c.id, coalesce(c.rpm, t.rpm), coalesce(c.tpm, t.tpm)) where %(asks_rates)s
) as k on true
where c.id = %(client_id)s
