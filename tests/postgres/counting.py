"""What the counts must say, against the jobs and attempts themselves; and time that passes for them."""

from datetime import datetime

from django.db import connection

# Whatever differs at any of the three grains: rows of (client, tier, priority, state, by the counts, by the jobs).
DIFFERENCES = """
with change as (
    select * from llmjobs_jobcountchange where state <> 'spent'
), counted as (
    select client_id, tier_id, priority, state, sum(jobs) as jobs, sum(tokens) as tokens, sum(usd) as usd
    from (
        select client_id, tier_id, priority, state, jobs, tokens, usd from llmjobs_jobcount
        union all
        select client_id, tier_id, priority, state, jobs, tokens, usd from change
        union all
        select null, tier_id, priority, state, jobs, tokens, usd from change
        union all
        select client_id, null, null, null, jobs, tokens, usd from change
    ) as c
    where state is distinct from 'submitted'
    group by client_id, tier_id, priority, state
    having sum(jobs) <> 0 or sum(tokens) <> 0 or sum(usd) <> 0
), found as (
    select client_id, tier_id, priority, state, count(*) as jobs, sum(est_input_tokens + est_output_tokens) as tokens,
        coalesce(sum(est_usd), 0) as usd
    from llmjobs_job
    group by grouping sets ((client_id, tier_id, priority, state), (tier_id, priority, state), (client_id))
    having count(*) > 0
)
(select 'counted', * from counted except select 'counted', * from found)
union all
(select 'found', * from found except select 'found', * from counted)
"""


def differences() -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(DIFFERENCES)
        return cursor.fetchall()


# The same of money: rows of (client, month, dollars). Attempts that were removed are still in what was counted.
SPENDING_DIFFERENCES = """
with counted as (
    select client_id, month, sum(usd) as usd
    from (
        select client_id, month, usd from llmjobs_spending
        union all
        select client_id, month, usd from llmjobs_jobcountchange where state = 'spent'
    ) as c
    group by client_id, month
    having sum(usd) <> 0
), found as (
    select client_id, date_trunc('month', ended_at at time zone 'UTC')::date as month, sum(cost_usd) as usd
    from llmjobs_attempt
    where ended_at is not null and client_id is not null
    group by 1, 2
    having sum(cost_usd) <> 0
)
(select 'counted', * from counted except select 'counted', * from found)
union all
(select 'found', * from found except select 'found', * from counted)
"""


def spending_differences() -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(SPENDING_DIFFERENCES)
        return cursor.fetchall()


def oldest_available_at() -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute("select min(available_at) from llmjobs_job where state = 'queued'")
        return cursor.fetchone()[0]


def pass_time(seconds: float) -> None:
    """For whoever counts: its last count, sweep and bound are so much longer ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "update llmjobs_jobcountturn set counted_at = counted_at - make_interval(secs => %(s)s), "
            "swept_at = swept_at - make_interval(secs => %(s)s), "
            "next_bound_at = next_bound_at - make_interval(secs => %(s)s)",
            {"s": seconds},
        )
