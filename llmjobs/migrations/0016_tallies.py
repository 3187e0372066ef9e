"""What happened, counted by the minute: tallies.

What the triggers append is told in models/tallies.py, who folds it in tallying.py. The functions of `0008_budgets` are
extended rather than given neighbours: a trigger more is a call more a statement.
"""

import importlib
from typing import Any

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

budgets = importlib.import_module("llmjobs.migrations.0008_budgets")

END = "    return null;\nend\n$$;"

# One row a statement, one entry in each array a job: no grouping, and as many rows whatever the clients are.
SUBMITTED = """
    insert into llmjobs_tallychange (of, pools, tiers, clients, words)
    select 'job', array_agg(pool_id), array_agg(tier_id), array_agg(client_id), array_agg('submitted'::text)
    from added
    having count(*) > 0;
"""

# What became queued or scheduled is told by what comes after it.
MOVED = """
    insert into llmjobs_tallychange (of, pools, tiers, words, waits_s)
    select 'job', array_agg(n.pool_id), array_agg(n.tier_id),
        array_agg(case when n.state <> 'running' then n.state when n.failures > 0 then 'retried' else 'started' end),
        array_agg(case
            when n.state = 'running' then extract(epoch from n.started_at - greatest(n.created_at, n.available_at))::float8
        end)
    from changed as n
    join original as o on o.id = n.id
    where n.state <> o.state and n.state not in ('queued', 'scheduled')
    having count(*) > 0;
"""

ENDED = """
    insert into llmjobs_tallychange (
        of, pools, tiers, clients, words, runs_s, first_tokens_s, input_tokens, output_tokens, usd)
    select 'attempt', array_agg(n.pool_id), array_agg(n.tier_id), array_agg(n.client_id),
        array_agg(case when n.outcome = 'rejected' and n.provider_status = 429 then 'rate_limited' else n.outcome end),
        array_agg(case when n.outcome = 'completed' then extract(epoch from n.ended_at - n.sent_at)::float8 end),
        array_agg(case when n.outcome = 'completed' then extract(epoch from n.first_token_at - n.sent_at)::float8 end),
        array_agg(n.input_tokens), array_agg(n.output_tokens), array_agg(n.cost_usd)
    from changed as n
    join original as o on o.id = n.id
    where n.ended_at is not null and o.ended_at is null
    having count(*) > 0;
"""


def function(name: str, more: str = "") -> str:
    """The function of 0008_budgets, with `more` before its end."""
    text = budgets.TRIGGERS + budgets.SPENDING
    begin = text.index(f"create function {name}()")
    found = text[begin : text.index(END, begin) + len(END)].replace("create function", "create or replace function", 1)
    return found.replace(END, more.lstrip("\n") + END) + "\n"


PIECES = {"llmjobs_jobs_added": SUBMITTED, "llmjobs_jobs_changed": MOVED, "llmjobs_attempts_changed": ENDED}
TRIGGERS = "".join(function(name, piece) for name, piece in PIECES.items())
TRIGGERS_REVERSE = "".join(function(name) for name in PIECES)

# Nobody writes from here until this has committed: what is counted below and what the triggers append is all, and once.
LOCK = "lock table llmjobs_job, llmjobs_attempt in share row exclusive mode"

# What is still there of what happened before. How long it took is not: histograms begin empty.
BACKFILL = """
insert into llmjobs_tally (period_s, at, pool_id, tier_id, of, word, number, input_tokens, output_tokens, usd)
select g.period_s, case when g.period_s = 0 then 'epoch' else h.day at time zone 'UTC' end, h.pool_id,
    case when g.period_s = 0 then h.tier_id end, h.of, h.word, sum(h.number), sum(h.input_tokens), sum(h.output_tokens), sum(h.usd)
from (
    select 'job' as of, 'submitted' as word, pool_id, tier_id, date_trunc('day', created_at at time zone 'UTC') as day,
        count(*) as number, 0 as input_tokens, 0 as output_tokens, 0 as usd
    from llmjobs_job
    group by 3, 4, 5
    union all
    select 'job', state, pool_id, tier_id, date_trunc('day', finished_at at time zone 'UTC'), count(*), 0, 0, 0
    from llmjobs_job
    where finished_at is not null
    group by 2, 3, 4, 5
    union all
    select 'job', case when is_retry then 'retried' else 'started' end, pool_id, tier_id,
        date_trunc('day', claimed_at at time zone 'UTC'), count(*), 0, 0, 0
    from llmjobs_attempt
    group by 2, 3, 4, 5
    union all
    select 'attempt', case when outcome = 'rejected' and provider_status = 429 then 'rate_limited' else outcome end,
        pool_id, tier_id, date_trunc('day', ended_at at time zone 'UTC'), count(*), coalesce(sum(input_tokens), 0),
        coalesce(sum(output_tokens), 0), coalesce(sum(cost_usd), 0)
    from llmjobs_attempt
    where ended_at is not null
    group by 2, 3, 4, 5
) as h
cross join (values (0), (86400)) as g (period_s)
group by 1, 2, 3, 4, 5, 6;
insert into llmjobs_clientday (client_id, day, jobs, attempts, input_tokens, output_tokens, usd)
select client_id, day, sum(jobs), sum(attempts), sum(input_tokens), sum(output_tokens), sum(usd)
from (
    select client_id, (created_at at time zone 'UTC')::date as day, count(*) as jobs, 0 as attempts, 0 as input_tokens,
        0 as output_tokens, 0 as usd
    from llmjobs_job
    group by 1, 2
    union all
    select client_id, (ended_at at time zone 'UTC')::date, 0, count(*), coalesce(sum(input_tokens), 0),
        coalesce(sum(output_tokens), 0), coalesce(sum(cost_usd), 0)
    from llmjobs_attempt
    where ended_at is not null and client_id is not null
    group by 1, 2
) as d
group by 1, 2;
"""

# Changes and samples are insert and delete; what is tallied is rewritten every few seconds.
TABLES = {
    "tallychange": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500",
    "tallymark": "fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500",
    "tally": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000",
    "tallytime": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000",
    "clientday": "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000",
    "tiersample": "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000",
}
STORAGE = ";".join(
    f"alter table llmjobs_{table} set ({said}, autovacuum_vacuum_cost_delay = 0)" for table, said in TABLES.items()
)
STORAGE_REVERSE = ";".join(
    f"alter table llmjobs_{table} reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, "
    "autovacuum_vacuum_cost_delay)"
    for table in TABLES
)


def of(model: str, **more: Any) -> models.ForeignKey:
    """To a row that may go: no key in the database."""
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.DO_NOTHING,
        to=f"llmjobs.{model}",
        **more,
    )


def array(field: models.Field, **more: Any) -> django.contrib.postgres.fields.ArrayField:
    return django.contrib.postgres.fields.ArrayField(base_field=field, size=None, **more)


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0015_permissions"),
    ]

    operations = [
        migrations.CreateModel(
            name="TallyChange",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("of", models.CharField(max_length=8)),
                ("pools", array(models.BigIntegerField())),
                ("tiers", array(models.BigIntegerField())),
                ("clients", array(models.BigIntegerField(null=True), null=True)),
                ("words", array(models.TextField())),
                ("waits_s", array(models.FloatField(null=True), null=True)),
                ("runs_s", array(models.FloatField(null=True), null=True)),
                ("first_tokens_s", array(models.FloatField(null=True), null=True)),
                ("input_tokens", array(models.IntegerField(null=True), null=True)),
                ("output_tokens", array(models.IntegerField(null=True), null=True)),
                ("usd", array(models.DecimalField(decimal_places=8, max_digits=14, null=True), null=True)),
            ],
        ),
        migrations.CreateModel(
            name="TallyMark",
            fields=[
                ("id", models.SmallIntegerField(primary_key=True, serialize=False)),
                ("folded_to", models.BigIntegerField()),
                ("folded_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("bound_id", models.BigIntegerField(db_default=0)),
                ("bound_xid", models.BigIntegerField(db_default=0)),
                ("next_bound_id", models.BigIntegerField(db_default=0)),
                ("next_bound_xid", models.BigIntegerField(db_default=0)),
                ("next_bound_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("sweep_from", models.BigIntegerField(db_default=0, help_text="No change has a smaller id.")),
                (
                    "swept_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="When changes behind the bound were last looked for.",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Tally",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period_s", models.IntegerField()),
                ("at", models.DateTimeField()),
                ("pool", of("model", null=True)),
                ("tier", of("tier", null=True)),
                ("of", models.CharField(help_text="job, or attempt.", max_length=8)),
                ("word", models.CharField(max_length=24)),
                ("number", models.BigIntegerField()),
                ("input_tokens", models.BigIntegerField(db_default=0)),
                ("output_tokens", models.BigIntegerField(db_default=0)),
                ("usd", models.DecimalField(db_default=0, decimal_places=8, max_digits=20)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("period_s", "at", "pool", "tier", "of", "word"),
                        name="tally_grain",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="TallyTime",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("period_s", models.IntegerField()),
                ("at", models.DateTimeField()),
                ("pool", of("model", null=True)),
                ("tier", of("tier", null=True)),
                ("measure", models.CharField(max_length=12)),
                ("le_s", models.FloatField(help_text="Infinity: beyond the last bound.")),
                ("number", models.BigIntegerField()),
                ("sum_s", models.FloatField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("period_s", "at", "pool", "tier", "measure", "le_s"),
                        name="tallytime_grain",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="ClientDay",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("client", of("client")),
                ("day", models.DateField()),
                ("jobs", models.BigIntegerField(db_default=0, help_text="Submitted.")),
                ("attempts", models.BigIntegerField(db_default=0)),
                ("input_tokens", models.BigIntegerField(db_default=0)),
                ("output_tokens", models.BigIntegerField(db_default=0)),
                ("usd", models.DecimalField(db_default=0, decimal_places=8, max_digits=20)),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("day", "client"), name="clientday_of_day")],
            },
        ),
        migrations.CreateModel(
            name="TierSample",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tier", "at", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="llmjobs.tier",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("queued", models.BigIntegerField()),
                ("running", models.BigIntegerField()),
                ("scheduled", models.BigIntegerField()),
                (
                    "oldest_s",
                    models.FloatField(help_text="For how long its oldest queued job had waited.", null=True),
                ),
            ],
        ),
        migrations.AddField(
            model_name="jobcountturn",
            name="tier_oldest",
            field=models.JSONField(help_text="The same by tier's id; null: unknown, of an older worker's.", null=True),
        ),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(LOCK, LOCK),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("attempt__gte", 0), ("state", "queued")),
                fields=["tier", "available_at"],
                name="job_queued_of_tier",
            ),
        ),
        migrations.RunSQL(TRIGGERS, TRIGGERS_REVERSE),
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
    ]
