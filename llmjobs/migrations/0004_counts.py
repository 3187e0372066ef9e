"""Jobs are counted as they change: for limits per client, a bound on the backlog, and statistics.

What the triggers do is told in models/counts.py, what they ask of a commit in limits.py.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

# Who changes jobs by whatever road (a verb, a form, SQL, retention) appends what that does to the counts, in the same
# transaction. Of a submit the transaction remembers the clients, each with its last row here: CHECK needs both.
TRIGGERS = """
create function llmjobs_jobs_added() returns trigger language plpgsql as $$
declare
    last_of_client jsonb;
begin
    with appended as (
        insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, oldest_at, is_submit)
        select client_id, tier_id, priority, state, count(*), sum(est_input_tokens::bigint + est_output_tokens),
            min(available_at) filter (where state = 'queued'), true
        from added
        group by client_id, tier_id, priority, state
        returning id, client_id, state
    )
    select jsonb_object_agg(client_id, id) into last_of_client
    from (
        select client_id, max(id) as id from appended where state in ('queued', 'scheduled') group by client_id
    ) as a;
    if last_of_client is not null and current_setting('llmjobs.backlog_max', true) <> '' then
        perform set_config('llmjobs.submitted', (
            coalesce(nullif(current_setting('llmjobs.submitted', true), '')::jsonb, '{}') || last_of_client
        )::text, true);
    end if;
    return null;
end
$$;

create function llmjobs_jobs_changed() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, oldest_at, is_submit)
    select client_id, tier_id, priority, state, sum(jobs), sum(jobs * tokens),
        min(queued_at) filter (where jobs > 0), false
    from (
        select client_id, tier_id, priority, state, 1 as jobs, est_input_tokens::bigint + est_output_tokens as tokens,
            case when state = 'queued' then available_at end as queued_at
        from changed
        union all
        select client_id, tier_id, priority, state, -1, est_input_tokens::bigint + est_output_tokens,
            case when state = 'queued' then available_at end
        from original
    ) as c
    group by client_id, tier_id, priority, state
    having sum(jobs) <> 0 or sum(jobs * tokens) <> 0
        or min(queued_at) filter (where jobs > 0) < min(queued_at) filter (where jobs < 0);
    return null;
end
$$;

create function llmjobs_jobs_removed() returns trigger language plpgsql as $$
begin
    insert into llmjobs_jobcountchange (client_id, tier_id, priority, state, jobs, tokens, is_submit)
    select client_id, tier_id, priority, state, -count(*), -sum(est_input_tokens::bigint + est_output_tokens), false
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

TRIGGERS_REVERSE = """
drop trigger llmjobs_jobs_added on llmjobs_job;
drop trigger llmjobs_jobs_changed on llmjobs_job;
drop trigger llmjobs_jobs_removed on llmjobs_job;
drop function llmjobs_jobs_added();
drop function llmjobs_jobs_changed();
drop function llmjobs_jobs_removed();
"""

# What waits: counted and changes in one statement, hence of one snapshot, and never a row twice. Stable, so that they
# see what the statement sees that calls them. The planner is pinned: few live and many dead rows mislead it into scans.
WAITING = """
create function llmjobs_waiting(client bigint, out jobs bigint, out tokens bigint) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    select coalesce(sum(w.jobs), 0), coalesce(sum(w.tokens), 0) into jobs, tokens
    from (
        select c.jobs, c.tokens
        from llmjobs_jobcount as c
        where c.client_id = client and c.state in ('queued', 'scheduled')
        union all
        select d.jobs, d.tokens
        from llmjobs_jobcountchange as d
        where d.client_id = client and d.state in ('queued', 'scheduled')
            and d.id >= coalesce((select t.bound_id from llmjobs_jobcountturn as t order by t.turn desc limit 1), 0)
    ) as w;
end
$$;

-- Of all clients. Not exact: no less than it is, from what grew alone, an index that claims and settles don't fill.
create function llmjobs_backlog(is_exact boolean) returns bigint language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    bound bigint := coalesce((select t.bound_id from llmjobs_jobcountturn as t order by t.turn desc limit 1), 0);
    counted bigint := (
        select sum(c.jobs) from llmjobs_jobcount as c where c.client_id is null and c.state in ('queued', 'scheduled'));
begin
    if is_exact then
        return coalesce(counted, 0) + coalesce((
            select sum(d.jobs)
            from (select c.* from llmjobs_jobcountchange as c where c.id >= bound order by c.id) as d
            where d.state in ('queued', 'scheduled')), 0);
    end if;
    return coalesce(counted, 0) + coalesce((
        select sum(d.jobs)
        from (
            select c.jobs
            from llmjobs_jobcountchange as c
            where c.id >= bound and c.state in ('queued', 'scheduled') and c.jobs > 0
            order by c.id
        ) as d), 0);
end
$$;
"""

WAITING_REVERSE = """
drop function llmjobs_waiting(bigint);
drop function llmjobs_backlog(boolean);
"""

# Asked at COMMIT, so that nobody waits for a transaction that is open: it holds no lock yet. What the count can't see
# yet has to wait for the same client's lock, and then sees this. All clients of a transaction are locked in the order
# of their ids, or two commits could deadlock. READ COMMITTED is what makes it exact: a statement after the lock sees
# what committed before it. In REPEATABLE READ the count is that of the transaction's snapshot, so what others submitted
# since then is not seen, and by that much more may wait. Only what came through submit is asked: it says so by setting
# llmjobs.backlog_max in its transaction.
# A row that is close behind the bound, because its transaction took long, gets a new id first, or the count would miss
# it. Only a client's last row is counted at, since it sees all rows of its transaction.
# The backlog is exact within a twentieth of its bound, where one lock orders all commits; before that a commit sees all
# but what commits at the same moment.
CHECK = """
create function llmjobs_check_limits() returns trigger language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    backlog_max bigint := nullif(current_setting('llmjobs.backlog_max', true), '');
    submitted jsonb := coalesce(nullif(current_setting('llmjobs.submitted', true), ''), '{}');
    one bigint;
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
    if (submitted ->> new.client_id::text)::bigint <> new.id then
        return null;
    end if;

    select w.jobs, w.tokens, c.name, coalesce(c.max_queued, t.max_queued) as max_jobs,
        coalesce(c.max_queued_tokens, t.max_queued_tokens) as max_tokens
    into found
    from llmjobs_waiting(new.client_id) as w
    join llmjobs_client as c on c.id = new.client_id
    join llmjobs_tier as t on t.id = c.tier_id;
    if found.jobs > found.max_jobs then
        raise exception using errcode = 'LJ429', message = 'llmjobs: the queue of client ' || found.name || ' is full',
            detail = jsonb_build_object('limit', 'max_queued', 'most', found.max_jobs, 'waiting', found.jobs);
    end if;
    if found.tokens > found.max_tokens then
        raise exception using errcode = 'LJ429', message = 'llmjobs: the queue of client ' || found.name || ' is full',
            detail = jsonb_build_object(
                'limit', 'max_queued_tokens', 'most', found.max_tokens, 'waiting', found.tokens);
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

CHECK_REVERSE = """
drop trigger llmjobs_check_limits on llmjobs_jobcountchange;
drop function llmjobs_check_limits();
"""

# Changes and turns are insert and delete, counts are rewritten every second.
STORAGE = """
alter table llmjobs_jobcount set (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_jobcountchange set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_jobcountturn set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
"""

STORAGE_REVERSE = ";".join(
    f"alter table llmjobs_{table} reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
    "autovacuum_vacuum_cost_delay)"
    for table in ("jobcount", "jobcountchange", "jobcountturn")
)

# The triggers' lock keeps writers out until this has committed.
BACKFILL = """
insert into llmjobs_jobcount (client_id, tier_id, priority, state, jobs, tokens)
select client_id, tier_id, priority, state, count(*), sum(est_input_tokens::bigint + est_output_tokens)
from llmjobs_job
group by grouping sets ((client_id, tier_id, priority, state), (tier_id, priority, state))
having count(*) > 0;
insert into llmjobs_jobcount (client_id, tier_id, priority, state, jobs, tokens)
select client_id, tier_id, priority, 'submitted', sum(jobs), sum(tokens)
from llmjobs_jobcount
group by client_id, tier_id, priority;
insert into llmjobs_jobcount (client_id, jobs, tokens)
select client_id, sum(jobs), sum(tokens)
from llmjobs_jobcount
where client_id is not null and state = 'submitted'
group by client_id;
update llmjobs_tier set max_queued = 1000 where max_queued is null;
"""

BACKFILL_REVERSE = "delete from llmjobs_jobcount; delete from llmjobs_jobcountchange; delete from llmjobs_jobcountturn"


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0003_aging_and_learning"),
    ]

    operations = [
        migrations.CreateModel(
            name="JobCountTurn",
            fields=[
                ("turn", models.BigIntegerField(primary_key=True, serialize=False)),
                ("counted_to", models.BigIntegerField()),
                ("counted_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("bound_id", models.BigIntegerField()),
                ("next_bound_id", models.BigIntegerField()),
                ("next_bound_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "swept_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="When rows behind the bound were last looked for.",
                    ),
                ),
                (
                    "oldest_at",
                    models.DateTimeField(
                        help_text="No queued job that was counted has waited for longer; null: none was queued.",
                        null=True,
                    ),
                ),
            ],
        ),
        migrations.AlterField(
            model_name="client",
            name="max_queued",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Jobs waiting at once, delayed ones and retries too, per client; more are refused.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="client",
            name="max_queued_tokens",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Estimated tokens waiting at once, per client; more are refused.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="max_queued",
            field=models.PositiveIntegerField(
                blank=True,
                db_default=1000,
                default=1000,
                help_text="Jobs waiting at once, delayed ones and retries too, per client; more are refused.",
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="max_queued_tokens",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Estimated tokens waiting at once, per client; more are refused.",
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="JobCount",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("priority", models.PositiveSmallIntegerField(null=True)),
                ("state", models.CharField(max_length=16, null=True)),
                ("jobs", models.BigIntegerField()),
                ("tokens", models.BigIntegerField(help_text="Estimated: input and output.")),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="llmjobs.client",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="llmjobs.tier",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("client__isnull", False), ("tier__isnull", True)),
                        fields=["-jobs"],
                        name="jobcount_largest",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("client", "tier", "priority", "state"), name="jobcount_grain", nulls_distinct=False
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="JobCountChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("priority", models.PositiveSmallIntegerField()),
                ("state", models.CharField(max_length=16)),
                ("jobs", models.BigIntegerField()),
                ("tokens", models.BigIntegerField()),
                (
                    "oldest_at",
                    models.DateTimeField(
                        help_text="Since when the oldest waits of those that became queued.", null=True
                    ),
                ),
                ("is_submit", models.BooleanField()),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="llmjobs.client",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        to="llmjobs.tier",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["client", "id"], name="jobcountchange_of_client"),
                    models.Index(
                        condition=models.Q(("jobs__gt", 0), ("state__in", ["queued", "scheduled"])),
                        fields=["id"],
                        name="jobcountchange_waiting",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "queued")), fields=["available_at"], name="job_queued_since"
            ),
        ),
        migrations.RunSQL(TRIGGERS, TRIGGERS_REVERSE),
        migrations.RunSQL(WAITING, WAITING_REVERSE),
        migrations.RunSQL(CHECK, CHECK_REVERSE),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(BACKFILL, BACKFILL_REVERSE),
    ]
