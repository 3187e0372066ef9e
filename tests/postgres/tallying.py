"""What the tallies must say, noted by row triggers that know nothing of theirs; and time that passes for who folds."""

from typing import Any

from django.db import connection

from llmjobs import tallying

# A row each time that a job came or moved, and that an attempt ended, whatever becomes of job and attempt later.
NOTED = """
create table noted (
    at timestamptz default statement_timestamp(), of text, pool_id bigint, tier_id bigint, client_id bigint, word text,
    took_s float8, input_tokens int, output_tokens int, usd numeric);
create function note_job() returns trigger language plpgsql as $$
begin
    insert into noted (of, pool_id, tier_id, client_id, word, took_s)
    values ('job', new.pool_id, new.tier_id, new.client_id,
        case
            when tg_op = 'INSERT' then 'submitted' when new.state = 'running' and new.failures > 0 then 'retried'
            when new.state = 'running' then 'started' else new.state
        end,
        case
            when new.state = 'running'
            then extract(epoch from new.started_at - greatest(new.created_at, new.available_at))
        end);
    return null;
end
$$;
create function note_attempt() returns trigger language plpgsql as $$
begin
    insert into noted (of, pool_id, tier_id, client_id, word, took_s, input_tokens, output_tokens, usd)
    values ('attempt', new.pool_id, new.tier_id, new.client_id,
        case when new.outcome = 'rejected' and new.provider_status = 429 then 'rate_limited' else new.outcome end,
        case when new.outcome = 'completed' then extract(epoch from new.ended_at - new.sent_at) end,
        new.input_tokens, new.output_tokens, new.cost_usd);
    return null;
end
$$;
create trigger note_new after insert on llmjobs_job for each row execute function note_job();
create trigger note_moved after update on llmjobs_job for each row
    when (new.state <> old.state and new.state not in ('queued', 'scheduled')) execute function note_job();
create trigger note_ended after update on llmjobs_attempt for each row
    when (old.outcome is null and new.outcome is not null) execute function note_attempt();
"""
NOTED_REVERSE = """
drop trigger note_new on llmjobs_job;
drop trigger note_moved on llmjobs_job;
drop trigger note_ended on llmjobs_attempt;
drop function note_job();
drop function note_attempt();
drop table noted;
"""

# Whatever differs at any grain.
DIFFERENCES = """
with found as (
    select g.period_s,
        case g.period_s when 0 then 'epoch' else date_bin(make_interval(secs => g.period_s), n.at, 'epoch') end as at,
        case when g.by_pool then pool_id end as pool_id, case when g.by_tier then tier_id end as tier_id, of, word,
        count(*) as number, coalesce(sum(input_tokens), 0) as input_tokens,
        coalesce(sum(output_tokens), 0) as output_tokens, coalesce(sum(usd), 0) as usd
    from noted as n
    cross join (values
        (0, true, true), (60, false, true), (600, false, true), (86400, true, false)
    ) as g (period_s, by_pool, by_tier)
    group by 1, 2, 3, 4, 5, 6
), counted as (
    select period_s, at, pool_id, tier_id, of, word, number, input_tokens, output_tokens, usd from llmjobs_tally
)
(select 'counted', * from counted except select 'counted', * from found)
union all
(select 'found', * from found except select 'found', * from counted)
"""
TIME_DIFFERENCES = """
with found as (
    select g.period_s,
        case g.period_s when 0 then 'epoch' else date_bin(make_interval(secs => g.period_s), n.at, 'epoch') end as at,
        case g.period_s when 0 then pool_id end as pool_id, case g.period_s when 0 then tier_id end as tier_id,
        case of when 'job' then 'wait' else 'run' end as measure, count(*) as number,
        round(sum(took_s)::numeric, 3) as sum_s
    from noted as n
    cross join (values (0), (60), (600)) as g (period_s)
    where took_s is not null
    group by 1, 2, 3, 4, 5
), counted as (
    select period_s, at, pool_id, tier_id, measure, sum(number) as number, round(sum(sum_s)::numeric, 3) as sum_s
    from llmjobs_tallytime
    where measure <> 'first_token'
    group by 1, 2, 3, 4, 5
)
(select 'counted', * from counted except select 'counted', * from found)
union all
(select 'found', * from found except select 'found', * from counted)
"""
DAY_DIFFERENCES = """
with found as (
    select client_id, (at at time zone 'UTC')::date as day, count(*) filter (where word = 'submitted') as jobs,
        count(*) filter (where of = 'attempt') as attempts, coalesce(sum(input_tokens), 0) as input_tokens,
        coalesce(sum(output_tokens), 0) as output_tokens, coalesce(sum(usd), 0) as usd
    from noted
    where of = 'attempt' or word = 'submitted'
    group by 1, 2
), counted as (
    select client_id, day, jobs, attempts, input_tokens, output_tokens, usd from llmjobs_clientday
)
(select 'counted', * from counted except select 'counted', * from found)
union all
(select 'found', * from found except select 'found', * from counted)
"""
# How each tier stands, as the jobs say: queued, running, scheduled, since when the oldest waits.
STANDING = """
select t.name, count(j.id) filter (where j.state = 'queued'), count(j.id) filter (where j.state = 'running'),
    count(j.id) filter (where j.state = 'scheduled'),
    extract(epoch from statement_timestamp() - min(j.available_at) filter (where j.state = 'queued'))::float8
from llmjobs_tier as t
left join llmjobs_job as j on j.tier_id = t.id
group by t.name
"""


def rows(statement: str, **params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return list(cursor.fetchall()) if cursor.description else []


def differences() -> list[tuple[Any, ...]]:
    """Once all changes are folded."""
    return rows(DIFFERENCES) + rows(TIME_DIFFERENCES) + rows(DAY_DIFFERENCES)


def fold_all() -> None:
    while tallying.help_tally():
        pass


def pass_time(seconds: float) -> None:
    """For whoever folds: the last fold, sweep and bound are so much longer ago."""
    rows(
        "update llmjobs_tallymark set folded_at = folded_at - make_interval(secs => %(s)s), "
        "swept_at = swept_at - make_interval(secs => %(s)s), "
        "next_bound_at = next_bound_at - make_interval(secs => %(s)s)",
        s=seconds,
    )
