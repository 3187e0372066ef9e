"""What the counts must say, against the jobs themselves; and time that passes for them."""

from datetime import datetime

from django.db import connection

# Whatever differs at any of the three grains: rows of (client, tier, priority, state, by the counts, by the jobs).
DIFFERENCES = """
with counted as (
    select client_id, tier_id, priority, state, sum(jobs) as jobs, sum(tokens) as tokens
    from (
        select client_id, tier_id, priority, state, jobs, tokens from llmjobs_jobcount
        union all
        select client_id, tier_id, priority, state, jobs, tokens from llmjobs_jobcountchange
        union all
        select null, tier_id, priority, state, jobs, tokens from llmjobs_jobcountchange
        union all
        select client_id, null, null, null, jobs, tokens from llmjobs_jobcountchange
    ) as c
    where state is distinct from 'submitted'
    group by client_id, tier_id, priority, state
    having sum(jobs) <> 0 or sum(tokens) <> 0
), found as (
    select client_id, tier_id, priority, state, count(*) as jobs, sum(est_input_tokens + est_output_tokens) as tokens
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
