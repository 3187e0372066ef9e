-- Called by: limits.money, for an operator who looks at a client.
-- Parameters: client_id.
-- Returns: month (its first day, UTC), spent in it, reserved: what the jobs that are not over are expected to cost.
-- Locks: nothing. Index: spending_of_month, jobcount_grain, jobcountchange_of_client.
select month, spent, reserved
from llmjobs_money(%(client_id)s)
