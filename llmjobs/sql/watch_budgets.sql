-- Called by: watch.
-- Parameters: least: of the budget, from which on a client matters. Literal: {rows}, the most clients.
-- Returns: client_id, client, budget, spent in this month (UTC), reserved: what its jobs are expected to cost that are not
-- over; open: the levels of the incidents that are open of its budget.
-- All clients with a budget at once, from counts: one pass over an index each, whatever the backlog. What was not counted
-- yet, a second's worth, comes with the next look.
-- Index: jobcount_grain, spending_of_month, incident_open_once.
with month as materialized (
    select llmjobs_month(statement_timestamp()) as month
), reserved as materialized (
    select client_id, sum(usd) as usd
    from llmjobs_jobcount
    where client_id is not null and tier_id is not null and state in ('queued', 'scheduled', 'running') and usd > 0
    group by client_id
), opened as materialized (
    select client_id, array_agg(level::text) as levels
    from llmjobs_incident
    where closed_at is null and kind = 'budget'
    group by client_id
)
select c.id as client_id, c.name as client, c.monthly_budget_usd as budget, coalesce(s.usd, 0) as spent,
    coalesce(r.usd, 0) as reserved, coalesce(o.levels, '{}') as open
from llmjobs_client as c
left join llmjobs_spending as s on s.client_id = c.id and s.month = (select month from month)
left join reserved as r on r.client_id = c.id
left join opened as o on o.client_id = c.id
where c.monthly_budget_usd > 0
    and coalesce(s.usd, 0) + coalesce(r.usd, 0) >= c.monthly_budget_usd * %(least)s::numeric
order by c.id
limit {rows}
