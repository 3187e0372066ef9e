"""Dollars are counted as jobs are: what is accepted and not over yet, and what attempts did cost, for monthly budgets.

What the triggers do is told in models/counts.py, what they ask of a commit in limits.py. The functions of `0004_counts`
are replaced by ones that count dollars too, and that refuse who asked to be refused rather than to wait.
"""

import importlib

import django.db.models.deletion
from django.db import migrations, models

counts = importlib.import_module("llmjobs.migrations.0004_counts")

# As in 0004_counts, and dollars. Of a submit the transaction also remembers each client's last row that costs something:
# what costs nothing is not asked for a budget. Rows go in by their dollars, so that what takes some away has a lower id.
TRIGGERS = """
create function llmjobs_jobs_added() returns trigger language plpgsql as $$
declare
    last_of_client jsonb;
    costly_of_client jsonb;
begin
    with appended as (
        insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, usd, oldest_at, is_submit)
        select client_id, tier_id, priority, state, count(*), sum(est_input_tokens::bigint + est_output_tokens),
            coalesce(sum(est_usd), 0), min(available_at) filter (where state = 'queued'), true
        from added
        group by client_id, tier_id, priority, state
        returning id, client_id, state, usd
    )
    select jsonb_object_agg(client_id, last_id),
        jsonb_object_agg(client_id, costly_id) filter (where costly_id is not null)
    into last_of_client, costly_of_client
    from (
        select client_id, max(id) as last_id, max(id) filter (where usd > 0) as costly_id
        from appended
        where state in ('queued', 'scheduled')
        group by client_id
    ) as a;
    if last_of_client is not null and current_setting('llmjobs.backlog_max', true) <> '' then
        perform set_config('llmjobs.submitted', (
            coalesce(nullif(current_setting('llmjobs.submitted', true), '')::jsonb, '{}') || last_of_client
        )::text, true);
        if costly_of_client is not null then
            perform set_config('llmjobs.costly', (
                coalesce(nullif(current_setting('llmjobs.costly', true), '')::jsonb, '{}') || costly_of_client
            )::text, true);
        end if;
    end if;
    return null;
end
$$;

create function llmjobs_jobs_changed() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, usd, oldest_at, is_submit)
    select client_id, tier_id, priority, state, sum(jobs), sum(jobs * tokens), sum(jobs * usd),
        min(queued_at) filter (where jobs > 0), false
    from (
        select client_id, tier_id, priority, state, 1 as jobs, est_input_tokens::bigint + est_output_tokens as tokens,
            coalesce(est_usd, 0) as usd, case when state = 'queued' then available_at end as queued_at
        from changed
        union all
        select client_id, tier_id, priority, state, -1, est_input_tokens::bigint + est_output_tokens,
            coalesce(est_usd, 0), case when state = 'queued' then available_at end
        from original
    ) as c
    group by client_id, tier_id, priority, state
    having sum(jobs) <> 0 or sum(jobs * tokens) <> 0 or sum(jobs * usd) <> 0
        or min(queued_at) filter (where jobs > 0) < min(queued_at) filter (where jobs < 0)
    order by sum(jobs * usd);
    return null;
end
$$;

create function llmjobs_jobs_removed() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, usd, is_submit)
    select client_id, tier_id, priority, state, -count(*), -sum(est_input_tokens::bigint + est_output_tokens),
        -coalesce(sum(est_usd), 0), false
    from removed
    group by client_id, tier_id, priority, state;
    return null;
end
$$;

create trigger llmjobs_jobs_added after insert on llmjobs_job
referencing new table as added for each statement execute function llmjobs_jobs_added();
create trigger llmjobs_jobs_changed after update on llmjobs_job
referencing new table as changed old table as original for each statement execute function llmjobs_jobs_changed();
create trigger llmjobs_jobs_removed after delete on llmjobs_job
referencing old table as removed for each statement execute function llmjobs_jobs_removed();
"""

# What an attempt did cost, in the month in which it ended (UTC). A settle updates many at once: one call for all of
# them. A claim inserts them without a cost: a condition by row, which costs it next to nothing, and no call. A settle
# updates jobs before attempts, so what was expected has left by a lower id than what it came to.
SPENDING = """
create function llmjobs_month(moment timestamptz) returns date language sql immutable
return date_trunc('month', moment at time zone 'UTC')::date;

create function llmjobs_attempt_added() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, state, month, jobs, tokens, usd, is_submit)
    values (new.client_id, 'spent', llmjobs_month(new.ended_at), 0, 0, new.cost_usd, false);
    return null;
end
$$;

create function llmjobs_attempts_changed() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, state, month, jobs, tokens, usd, is_submit)
    select client_id, 'spent', month, 0, 0, sum(usd), false
    from (
        select client_id, llmjobs_month(ended_at) as month, cost_usd as usd
        from changed
        where cost_usd is not null and ended_at is not null and client_id is not null
        union all
        select client_id, llmjobs_month(ended_at), -cost_usd
        from original
        where cost_usd is not null and ended_at is not null and client_id is not null
    ) as c
    group by client_id, month
    having sum(usd) <> 0
    order by sum(usd);
    return null;
end
$$;

create trigger llmjobs_attempt_added after insert on llmjobs_attempt
for each row when (new.cost_usd is not null and new.ended_at is not null and new.client_id is not null)
execute function llmjobs_attempt_added();
create trigger llmjobs_attempts_changed after update on llmjobs_attempt
referencing new table as changed old table as original for each statement execute function llmjobs_attempts_changed();
"""

SPENDING_REVERSE = """
drop trigger llmjobs_attempts_changed on llmjobs_attempt;
drop trigger llmjobs_attempt_added on llmjobs_attempt;
drop function llmjobs_attempts_changed();
drop function llmjobs_attempt_added();
drop function llmjobs_month(timestamptz);
delete from llmjobs_jobcountchange where state = 'spent';
"""

# As in 0004_counts, and what is queued alone: a delayed job does not wait for a limit.
WAITING = """
create function llmjobs_waiting(
    client bigint, out jobs bigint, out tokens bigint, out queued bigint, out queued_tokens bigint
) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    select coalesce(sum(w.jobs), 0), coalesce(sum(w.tokens), 0),
        coalesce(sum(w.jobs) filter (where w.state = 'queued'), 0),
        coalesce(sum(w.tokens) filter (where w.state = 'queued'), 0)
    into jobs, tokens, queued, queued_tokens
    from (
        select c.state, c.jobs, c.tokens
        from llmjobs_jobcount as c
        where c.client_id = client and c.state in ('queued', 'scheduled')
        union all
        select d.state, d.jobs, d.tokens
        from llmjobs_jobcountchange as d
        where d.client_id = client and d.state in ('queued', 'scheduled')
            and d.id >= coalesce((select t.bound_id from llmjobs_jobcountturn as t order by t.turn desc limit 1), 0)
    ) as w;
end
$$;
"""

WAITING_REVERSE = """
drop function llmjobs_waiting(bigint);
"""

# Of a client, by the database's clock: what it spent in this month, and what its jobs that are not over are expected to
# cost. Counted and changes in one statement, as in llmjobs_waiting.
MONEY = """
create function llmjobs_money(client bigint, out month date, out spent numeric, out reserved numeric)
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    this_month date := llmjobs_month(statement_timestamp());
begin
    month := this_month;
    select coalesce(sum(m.usd) filter (where m.state = 'spent'), 0),
        coalesce(sum(m.usd) filter (where m.state <> 'spent'), 0)
    into spent, reserved
    from (
        select 'spent' as state, s.usd
        from llmjobs_spending as s
        where s.client_id = client and s.month = this_month
        union all
        select c.state, c.usd
        from llmjobs_jobcount as c
        where c.client_id = client and c.state in ('queued', 'scheduled', 'running')
        union all
        select d.state, d.usd
        from llmjobs_jobcountchange as d
        where d.client_id = client and d.state in ('queued', 'scheduled', 'running', 'spent')
            and (d.month is null or d.month = this_month)
            and d.id >= coalesce((select t.bound_id from llmjobs_jobcountturn as t order by t.turn desc limit 1), 0)
    ) as m;
end
$$;
"""

MONEY_REVERSE = "drop function llmjobs_money(bigint)"

# Of a client's own limits a minute, what is taken: the level of its bucket, which a claim fills and time drains, and all
# that is queued, since it comes first. Null where there is no limit. A client without a bucket has used nothing. What is
# in a bucket is what fair_order.sql takes it for: where the limit was another when it was filled, what is in it stays; of
# a limit that was lowered it is full at most.
TAKEN = """
create function llmjobs_taken(client bigint, rpm integer, tpm integer, out requests float8, out tokens float8)
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    now_s float8 := extract(epoch from statement_timestamp());
    bucket record;
    waiting record;
begin
    select b.requests_at, b.tokens_at, b.requests_rate, b.tokens_rate, b.tokens_due into bucket
    from llmjobs_bucketturn as b
    where b.kind = 2 and b.of_id = client
    order by b.turn desc
    limit 1;
    select w.queued, w.queued_tokens into waiting from llmjobs_waiting(client) as w;
    if rpm is not null then
        requests := waiting.queued
            + least(greatest(bucket.requests_at - now_s, 0) * coalesce(bucket.requests_rate, rpm / 60.0), rpm);
    end if;
    if tpm is not null then
        -- A single job counts as the whole limit at most, as for a claim: it goes once all is free.
        tokens := case when waiting.queued = 1 then least(waiting.queued_tokens, tpm) else waiting.queued_tokens end + greatest(
            least(
                greatest(bucket.tokens_at - now_s, 0) * coalesce(bucket.tokens_rate, tpm / 60.0)
                + coalesce(bucket.tokens_due, 0), tpm), 0);
    end if;
end
$$;
"""

TAKEN_REVERSE = "drop function llmjobs_taken(bigint, integer, integer)"

# As in 0004_counts, and what else is asked under the client's lock: the month's budget, of who submits what costs
# something; and where its last submit asked to be refused rather than to wait (llmjobs.rejects), whether all that the
# client has queued, with this, fits its own limits a minute.
CHECK = """
create function llmjobs_check_limits() returns trigger language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    backlog_max bigint := nullif(current_setting('llmjobs.backlog_max', true), '');
    submitted jsonb := coalesce(nullif(current_setting('llmjobs.submitted', true), ''), '{}');
    costly jsonb := coalesce(nullif(current_setting('llmjobs.costly', true), ''), '{}');
    rejects jsonb := coalesce(nullif(current_setting('llmjobs.rejects', true), ''), '{}');
    one bigint;
    own record;
    found record;
    backlog bigint;
begin
    if backlog_max is null then
        return null;
    end if;
    if current_setting('llmjobs.locked', true) is distinct from submitted::text then
        for one in select key::bigint from jsonb_object_keys(submitted) as key order by 1 loop
            perform pg_advisory_xact_lock(hashtext('llmjobs.limits'), (one % 2147483647)::int);
        end loop;
        perform set_config('llmjobs.locked', submitted::text, true);
    end if;
    if new.id < (select next_bound_id from llmjobs_jobcountturn order by turn desc limit 1) then
        update llmjobs_jobcountchange
        set id = nextval(pg_get_serial_sequence('llmjobs_jobcountchange', 'id'))
        where id = new.id;
    end if;
    if new.id not in (
        (submitted ->> new.client_id::text)::bigint, coalesce((costly ->> new.client_id::text)::bigint, 0)
    ) then
        return null;
    end if;

    select c.name, c.monthly_budget_usd as budget, coalesce(c.max_queued, t.max_queued) as max_jobs,
        coalesce(c.max_queued_tokens, t.max_queued_tokens) as max_tokens, coalesce(c.rpm, t.rpm) as rpm,
        coalesce(c.tpm, t.tpm) as tpm
    into own
    from llmjobs_client as c
    join llmjobs_tier as t on t.id = c.tier_id
    where c.id = new.client_id;
    if own.budget is not null and (costly ->> new.client_id::text)::bigint = new.id then
        select m.spent + m.reserved as usd into found from llmjobs_money(new.client_id) as m;
        if found.usd > own.budget then
            raise exception using errcode = 'LJ429', message = 'llmjobs: client ' || own.name || ' is over its budget',
                detail = jsonb_build_object('limit', 'monthly_budget_usd', 'most', own.budget, 'waiting', found.usd);
        end if;
    end if;
    if (submitted ->> new.client_id::text)::bigint <> new.id then
        return null;
    end if;

    select w.jobs, w.tokens into found from llmjobs_waiting(new.client_id) as w;
    if found.jobs > own.max_jobs then
        raise exception using errcode = 'LJ429', message = 'llmjobs: the queue of client ' || own.name || ' is full',
            detail = jsonb_build_object('limit', 'max_queued', 'most', own.max_jobs, 'waiting', found.jobs);
    end if;
    if found.tokens > own.max_tokens then
        raise exception using errcode = 'LJ429', message = 'llmjobs: the queue of client ' || own.name || ' is full',
            detail = jsonb_build_object(
                'limit', 'max_queued_tokens', 'most', own.max_tokens, 'waiting', found.tokens);
    end if;
    if rejects ? new.client_id::text and coalesce(own.rpm, own.tpm) is not null then
        select t.requests, t.tokens into found from llmjobs_taken(new.client_id, own.rpm, own.tpm) as t;
        if found.requests > own.rpm then
            raise exception using errcode = 'LJ429', message = 'llmjobs: client ' || own.name || ' is at its limit',
                detail = jsonb_build_object('limit', 'rpm', 'most', own.rpm, 'waiting', found.requests);
        end if;
        if found.tokens > own.tpm then
            raise exception using errcode = 'LJ429', message = 'llmjobs: client ' || own.name || ' is at its limit',
                detail = jsonb_build_object('limit', 'tpm', 'most', own.tpm, 'waiting', found.tokens);
        end if;
    end if;

    backlog := llmjobs_backlog(false);
    if backlog + greatest(backlog_max / 20, 20000) > backlog_max then
        perform pg_advisory_xact_lock(hashtext('llmjobs.backlog'), 0);
        backlog := llmjobs_backlog(true);
        if backlog > backlog_max then
            raise exception using errcode = 'LJ429', message = 'llmjobs: the backlog is full',
                detail = jsonb_build_object('limit', 'backlog_max', 'most', backlog_max, 'waiting', backlog);
        end if;
    end if;
    return null;
end
$$;

create constraint trigger llmjobs_check_limits after insert on llmjobs_jobcountchange
deferrable initially deferred
for each row when (new.is_submit and new.state in ('queued', 'scheduled')) execute function llmjobs_check_limits();
"""

# 0004_counts has both in one text; only the first of them is another one here.
OLD_WAITING = counts.WAITING[: counts.WAITING.index("-- Of all clients.")]

STORAGE = """
alter table llmjobs_spending set (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
"""

STORAGE_REVERSE = """
alter table llmjobs_spending reset (
    fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay)
"""

# The triggers' locks keep writers out until this has committed. Changes that were not counted yet hold no dollars: all
# of what the jobs hold goes into the counts.
BACKFILL = """
insert into llmjobs_jobcount as c (client_id, tier_id, priority, state, jobs, tokens, usd)
select client_id, tier_id, priority, state, 0, 0, sum(est_usd)
from llmjobs_job
where est_usd <> 0
group by grouping sets ((client_id, tier_id, priority, state), (tier_id, priority, state), (client_id))
having sum(est_usd) <> 0
on conflict (client_id, tier_id, priority, state) do update set usd = excluded.usd;
insert into llmjobs_jobcount as c (client_id, tier_id, priority, state, jobs, tokens, usd)
select client_id, tier_id, priority, 'submitted', 0, 0, sum(est_usd)
from llmjobs_job
where est_usd <> 0
group by grouping sets ((client_id, tier_id, priority), (tier_id, priority))
having sum(est_usd) <> 0
on conflict (client_id, tier_id, priority, state) do update set usd = excluded.usd;
insert into llmjobs_spending (client_id, month, usd)
select client_id, llmjobs_month(ended_at), sum(cost_usd)
from llmjobs_attempt
where cost_usd <> 0 and ended_at is not null and client_id is not null
group by client_id, llmjobs_month(ended_at);
"""

BACKFILL_REVERSE = "update llmjobs_jobcount set usd = 0; delete from llmjobs_spending"


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0007_buckets"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobcount",
            name="usd",
            field=models.DecimalField(db_default=0, decimal_places=8, help_text="Estimated dollars.", max_digits=20),
        ),
        migrations.AddField(
            model_name="jobcountchange",
            name="month",
            field=models.DateField(help_text="Of what was spent: its first day, UTC.", null=True),
        ),
        migrations.AddField(
            model_name="jobcountchange",
            name="usd",
            field=models.DecimalField(db_default=0, decimal_places=8, max_digits=20),
        ),
        migrations.AlterField(
            model_name="jobcountchange",
            name="priority",
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AlterField(
            model_name="jobcountchange",
            name="state",
            field=models.CharField(
                help_text="A job's, or `spent`: then only client, month and dollars say.", max_length=16
            ),
        ),
        migrations.AlterField(
            model_name="jobcountchange",
            name="tier",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                to="llmjobs.tier",
            ),
        ),
        migrations.CreateModel(
            name="Spending",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.DateField(help_text="Its first day, UTC.")),
                ("usd", models.DecimalField(decimal_places=8, max_digits=20)),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="llmjobs.client",
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("client", "month"), name="spending_of_month")],
            },
        ),
        migrations.RunSQL(counts.TRIGGERS_REVERSE + TRIGGERS, counts.TRIGGERS_REVERSE + counts.TRIGGERS),
        migrations.RunSQL(SPENDING, SPENDING_REVERSE),
        migrations.RunSQL(WAITING_REVERSE + WAITING, WAITING_REVERSE + OLD_WAITING),
        migrations.RunSQL(MONEY, MONEY_REVERSE),
        migrations.RunSQL(TAKEN, TAKEN_REVERSE),
        migrations.RunSQL(counts.CHECK_REVERSE + CHECK, counts.CHECK_REVERSE + counts.CHECK),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(BACKFILL, BACKFILL_REVERSE),
    ]
