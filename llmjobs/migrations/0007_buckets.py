"""Buckets: what is left of the limits, and breakers."""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

STORAGE = """
alter table llmjobs_bucketturn set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
"""

STORAGE_REVERSE = """
alter table llmjobs_bucketturn reset (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay);
"""

# What is there has buckets from now on, all empty; the next fold copies the limits of clients to their flows.
BUCKETS = """
insert into llmjobs_bucketturn (kind, of_id, turn, queued, running)
select 0, m.id, 0, j.queued - coalesce(i.queued, 0), j.running - coalesce(i.running, 0)
from llmjobs_model as m
cross join lateral (
    select count(*) filter (where state = 'queued') as queued, count(*) filter (where state = 'running') as running
    from llmjobs_job
    where pool_id = m.id
) as j
-- What is in the inbox has yet to be folded in.
cross join lateral (select sum(queued) as queued, sum(running) as running from llmjobs_inbox where pool_id = m.id) as i;
insert into llmjobs_bucketturn (kind, of_id, turn, queued, running)
select 1, p.id, 0, coalesce(sum(b.queued), 0), coalesce(sum(b.running), 0)
from llmjobs_provider as p
left join llmjobs_model as m on m.provider_id = p.id
left join llmjobs_bucketturn as b on b.kind = 0 and b.of_id = m.id
group by p.id;
insert into llmjobs_inbox (shard_id, pool_id, client_id)
select m.shard_id, f.pool_id, f.client_id
from llmjobs_flow as f
join llmjobs_model as m on m.id = f.pool_id;
"""

# The limits of clients and tiers reach their flows, by whatever road they were edited.
EDITS = """
create or replace function llmjobs_client_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_flow as f on f.client_id = n.id
    join llmjobs_model as m on m.id = f.pool_id
    where (n.is_paused, n.tier_id, n.max_running, n.weight, n.rpm, n.tpm)
        is distinct from (o.is_paused, o.tier_id, o.max_running, o.weight, o.rpm, o.tpm);
    return null;
end
$$;
create or replace function llmjobs_tier_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_client as c on c.tier_id = n.id
    join llmjobs_flow as f on f.client_id = c.id
    join llmjobs_model as m on m.id = f.pool_id
    where n.aging_s <> o.aging_s
        or (c.max_running is null and n.max_running is distinct from o.max_running)
        or (c.rpm is null and n.rpm is distinct from o.rpm)
        or (c.tpm is null and n.tpm is distinct from o.tpm);
    return null;
end
$$;
"""

EDITS_REVERSE = """
create or replace function llmjobs_client_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_flow as f on f.client_id = n.id
    join llmjobs_model as m on m.id = f.pool_id
    where (n.is_paused, n.tier_id, n.max_running, n.weight)
        is distinct from (o.is_paused, o.tier_id, o.max_running, o.weight);
    return null;
end
$$;
create or replace function llmjobs_tier_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_client as c on c.tier_id = n.id
    join llmjobs_flow as f on f.client_id = c.id
    join llmjobs_model as m on m.id = f.pool_id
    where n.aging_s <> o.aging_s or (c.max_running is null and n.max_running is distinct from o.max_running);
    return null;
end
$$;
"""


# Each pool and account has its bucket from its first moment, by whatever road it was made.
BIRTHS = """
create function llmjobs_model_made() returns trigger language plpgsql as $$
begin
    insert into llmjobs_bucketturn (kind, of_id, turn) select 0, id, 0 from made;
    return null;
end
$$;
create trigger llmjobs_model_made after insert on llmjobs_model
referencing new table as made for each statement execute function llmjobs_model_made();
create function llmjobs_provider_made() returns trigger language plpgsql as $$
begin
    insert into llmjobs_bucketturn (kind, of_id, turn) select 1, id, 0 from made;
    return null;
end
$$;
create trigger llmjobs_provider_made after insert on llmjobs_provider
referencing new table as made for each statement execute function llmjobs_provider_made();
"""

# An edit of limits acts on pools that are closed by the old ones, by whatever road it was made: news that says nothing
# else. A pool that no client has used yet is not closed.
LIMITS = """
create function llmjobs_limits_edited(pools bigint[]) returns void language sql as $$
    insert into llmjobs_inbox (shard_id, pool_id, client_id, signal)
    select m.shard_id, m.id, f.client_id, jsonb_build_object('at', extract(epoch from statement_timestamp()))
    from llmjobs_model as m
    cross join lateral (select client_id from llmjobs_flow where pool_id = m.id order by client_id limit 1) as f
    where m.id = any (pools)
$$;
create function llmjobs_model_edited() returns trigger language plpgsql as $$
begin
    perform llmjobs_limits_edited(array(
        select n.id
        from edited as n
        join original as o on o.id = n.id
        where (n.provider_id, n.rpm, n.tpm, n.max_running, n."window", n.token_policy)
            is distinct from (o.provider_id, o.rpm, o.tpm, o.max_running, o."window", o.token_policy)));
    return null;
end
$$;
create trigger llmjobs_model_edited after update on llmjobs_model
referencing new table as edited old table as original for each statement execute function llmjobs_model_edited();
create function llmjobs_provider_edited() returns trigger language plpgsql as $$
begin
    perform llmjobs_limits_edited(array(
        select m.id
        from edited as n
        join original as o on o.id = n.id
        join llmjobs_model as m on m.provider_id = n.id
        where (n.rpm, n.tpm, n.max_running) is distinct from (o.rpm, o.tpm, o.max_running)));
    return null;
end
$$;
create trigger llmjobs_provider_edited after update on llmjobs_provider
referencing new table as edited old table as original for each statement execute function llmjobs_provider_edited();
"""

LIMITS_REVERSE = """
drop trigger llmjobs_model_edited on llmjobs_model;
drop function llmjobs_model_edited();
drop trigger llmjobs_provider_edited on llmjobs_provider;
drop function llmjobs_provider_edited();
drop function llmjobs_limits_edited(bigint[]);
"""

BIRTHS_REVERSE = """
drop trigger llmjobs_model_made on llmjobs_model;
drop function llmjobs_model_made();
drop trigger llmjobs_provider_made on llmjobs_provider;
drop function llmjobs_provider_made();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0006_tiers_may_go"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="BucketTurn",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "kind", "of_id", "turn", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("kind", models.PositiveSmallIntegerField(choices=[(0, "Pool"), (1, "Account"), (2, "Client")])),
                ("of_id", models.BigIntegerField(help_text="Of the model, the provider or the client.")),
                ("turn", models.BigIntegerField()),
                ("requests_at", models.FloatField(db_default=0)),
                ("tokens_at", models.FloatField(db_default=0)),
                (
                    "tokens_due",
                    models.FloatField(
                        db_default=0, help_text="Used less reserved tokens, which the next claim puts in."
                    ),
                ),
                (
                    "requests_rate",
                    models.FloatField(help_text="A second, at which it drains; null: no such limit.", null=True),
                ),
                ("tokens_rate", models.FloatField(null=True)),
                ("moved_at", models.FloatField(db_default=0, help_text="When something was last reserved.")),
                ("opens_at", models.FloatField(help_text="When its next send may be claimed; null: now.", null=True)),
                (
                    "held_until",
                    models.FloatField(
                        help_text="Tokens are kept for who is next: claims that don't see it wait.", null=True
                    ),
                ),
                (
                    "held_by",
                    models.BigIntegerField(
                        help_text="Of an account: the model whose next call they are kept for.", null=True
                    ),
                ),
                (
                    "waits_since",
                    models.FloatField(help_text="Of a pool: since when its next call finds no room.", null=True),
                ),
                ("requests", models.BigIntegerField(db_default=0)),
                ("tokens", models.FloatField(db_default=0, help_text="Reserved, then corrected by what was used.")),
                (
                    "refusals",
                    models.BigIntegerField(db_default=0, help_text="Calls that the provider answered with 429."),
                ),
                (
                    "lies",
                    models.BigIntegerField(db_default=0, help_text="Headers that made no sense, and changed nothing."),
                ),
                ("queued", models.IntegerField(db_default=0)),
                ("running", models.IntegerField(db_default=0)),
                (
                    "jitter_s",
                    models.FloatField(db_default=0, help_text="How late calls left their workers lately, at most."),
                ),
                ("largest", models.FloatField(db_default=0, help_text="Tokens of the largest reservation lately.")),
                (
                    "learned",
                    models.FloatField(
                        db_default=4,
                        help_text="The weight of what is known, in jobs: the first guess counts as 4, and 64 is the most.",
                    ),
                ),
                ("mean_tokens", models.FloatField(db_default=0, help_text="Of completed jobs, input and output.")),
                (
                    "error_var",
                    models.FloatField(db_default=65536, help_text="Mean square of used less reserved tokens."),
                ),
                (
                    "requests_limit",
                    models.FloatField(help_text="A minute; where its headers say less.", null=True),
                ),
                ("tokens_limit", models.FloatField(null=True)),
                ("told_at", models.FloatField(db_default=0, help_text="When it said so.")),
                (
                    "requests_left",
                    models.FloatField(help_text="What it said is left, which the next claim heeds.", null=True),
                ),
                ("tokens_left", models.FloatField(null=True)),
                ("left_at", models.FloatField(db_default=0)),
                (
                    "rate_factor",
                    models.FloatField(
                        db_default=1, help_text="Halved by slow_down, as of factor_at; doubles by itself."
                    ),
                ),
                ("factor_at", models.FloatField(db_default=0)),
                (
                    "blocked_by",
                    models.CharField(
                        choices=[
                            ("rate_limit", "Rate Limit"),
                            ("provider_quota", "Quota"),
                            ("provider_auth", "Auth"),
                            ("provider_down", "Down"),
                        ],
                        max_length=16,
                        null=True,
                    ),
                ),
                (
                    "blocked_until",
                    models.FloatField(help_text="Then one call is tried, if a breaker is open.", null=True),
                ),
                ("block_s", models.FloatField(db_default=0, help_text="How long it was blocked the last time.")),
                ("strikes", models.IntegerField(db_default=0, help_text="Refused keys in a row.")),
                (
                    "downs",
                    models.IntegerField(db_default=0, help_text="Failed connections and server errors in a row."),
                ),
                ("struck_at", models.FloatField(db_default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Incident",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("rate_limit", "Rate Limit"),
                            ("provider_quota", "Quota"),
                            ("provider_auth", "Auth"),
                            ("provider_down", "Down"),
                        ],
                        max_length=16,
                    ),
                ),
                ("words", models.TextField(blank=True, db_default="", help_text="What the provider said.")),
                ("opened_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("closed_at", models.DateTimeField(null=True)),
                ("opening_told_at", models.DateTimeField(null=True)),
                ("closing_told_at", models.DateTimeField(null=True)),
                (
                    "tell_again_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="Not before, after a failure to tell.",
                    ),
                ),
                ("tell_failures", models.PositiveSmallIntegerField(db_default=0)),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="PoolSample",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "pool", "at", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="llmjobs.model",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("requests", models.BigIntegerField()),
                ("tokens", models.FloatField()),
                ("refusals", models.BigIntegerField()),
                ("queued", models.IntegerField()),
                ("running", models.IntegerField()),
                ("rpm", models.FloatField(help_text="Requests a minute that were allowed.")),
                ("tpm", models.FloatField()),
                ("blocked_by", models.CharField(max_length=16, null=True)),
            ],
        ),
        migrations.RemoveIndex(
            model_name="job",
            name="job_ready",
        ),
        migrations.AddField(
            model_name="attempt",
            name="reserved",
            field=models.FloatField(
                db_default=0, help_text="Tokens taken from the limits, until it is known what was used."
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="slot_s",
            field=models.FloatField(db_default=0, help_text="How long after the claim it was to be sent."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="error_var",
            field=models.FloatField(db_default=0, help_text="Mean square of used less reserved tokens."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="opens_at",
            field=models.FloatField(help_text="When its client's bucket has room again, Unix time.", null=True),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="rpm",
            field=models.IntegerField(help_text="The client's, or its tier's.", null=True),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="tokens_ratio",
            field=models.FloatField(db_default=1, help_text="Mean of used by estimated tokens, of completed jobs."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="tpm",
            field=models.IntegerField(help_text="The client's, or its tier's.", null=True),
        ),
        migrations.AddField(
            model_name="inbox",
            name="answered_at",
            field=models.FloatField(help_text="The latest claim among those that the provider answered.", null=True),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_est_tokens",
            field=models.FloatField(db_default=0, help_text="Their estimated tokens, together."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_sq_error",
            field=models.FloatField(db_default=0, help_text="Squares of used less reserved tokens, together."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_tokens",
            field=models.FloatField(db_default=0, help_text="Their tokens, input and output, together."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="signal",
            field=models.JSONField(help_text="What the provider said beside the answers (signals.py).", null=True),
        ),
        migrations.AddField(
            model_name="inbox",
            name="tokens",
            field=models.FloatField(db_default=0, help_text="Used less reserved tokens, for the buckets."),
        ),
        migrations.AddField(
            model_name="job",
            name="est_usd",
            field=models.DecimalField(decimal_places=8, help_text="Null: no price is known.", max_digits=14, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="home",
            field=models.ForeignKey(
                db_index=False,
                help_text="The model that was asked for, of a job that a fallback took.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="llmjobs.model",
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="max_output_tokens",
            field=models.PositiveIntegerField(help_text="The most that the request allows; null: unsaid.", null=True),
        ),
        migrations.AddField(
            model_name="model",
            name="token_policy",
            field=models.CharField(
                choices=[
                    ("portfolio", "portfolio: what is expected, and a margin for all that is in flight together"),
                    ("expected", "expected: what is expected, no margin"),
                    ("max_tokens", "max_tokens: all that the request allows, as the provider counts it up front"),
                ],
                db_default="portfolio",
                default="portfolio",
                help_text="What a call reserves of the tokens a minute until its end.",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="model",
            name="window",
            field=models.CharField(
                choices=[("minute", "by the minute"), ("second", "by the second")],
                db_default="minute",
                default="minute",
                help_text="How the provider counts requests.",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="provider",
            name="max_running",
            field=models.PositiveIntegerField(
                blank=True, help_text="Calls in flight at once, of all its models together.", null=True
            ),
        ),
        migrations.AddField(
            model_name="provider",
            name="rpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Requests a minute of all its models together, where the account has such a limit.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="RPM",
            ),
        ),
        migrations.AddField(
            model_name="provider",
            name="tpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Tokens a minute of all its models together, where the account has such a limit.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="TPM",
            ),
        ),
        migrations.AddField(
            model_name="shardturn",
            name="opened_to",
            field=models.FloatField(db_default=0, help_text="Flows due to open until then were looked at, Unix time."),
        ),
        migrations.AlterField(
            model_name="client",
            name="rpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Requests a minute, per client, of all models together.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="RPM",
            ),
        ),
        migrations.AlterField(
            model_name="client",
            name="tpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Tokens a minute, per client, of all models together.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="TPM",
            ),
        ),
        migrations.AlterField(
            model_name="flowturn",
            name="is_open",
            field=models.BooleanField(default=True, help_text="Neither paused nor at a limit of its client."),
        ),
        migrations.AlterField(
            model_name="model",
            name="rpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Requests a minute that the provider allows; empty: the default (LLMJOBS_DEFAULT_RPM).",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="RPM",
            ),
        ),
        migrations.AlterField(
            model_name="model",
            name="tpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Tokens a minute that the provider allows; empty: the default (LLMJOBS_DEFAULT_TPM).",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="TPM",
            ),
        ),
        migrations.AlterField(
            model_name="provider",
            name="default_rpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Of a pool made on first use.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="default RPM",
            ),
        ),
        migrations.AlterField(
            model_name="provider",
            name="default_tpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Of a pool made on first use.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="default TPM",
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="rpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Requests a minute, per client, of all models together.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="RPM",
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="tpm",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Tokens a minute, per client, of all models together.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
                verbose_name="TPM",
            ),
        ),
        migrations.AddIndex(
            model_name="flowturn",
            index=models.Index(
                condition=models.Q(("opens_at__isnull", False)), fields=["opens_at"], name="flowturn_opening"
            ),
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "queued")),
                fields=["pool", "client", "priority", "size", "lane_order"],
                include=("id", "est_cost", "est_input_tokens", "est_output_tokens", "max_output_tokens"),
                name="job_ready",
            ),
        ),
        migrations.AddConstraint(
            model_name="client",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rpm__isnull", True), ("rpm__gte", 1), _connector="OR"),
                    models.Q(("tpm__isnull", True), ("tpm__gte", 1), _connector="OR"),
                ),
                name="client_rates_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="model",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rpm__isnull", True), ("rpm__gte", 1), _connector="OR"),
                    models.Q(("tpm__isnull", True), ("tpm__gte", 1), _connector="OR"),
                ),
                name="model_rates_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="model",
            constraint=models.CheckConstraint(
                condition=models.Q(("window__in", ["minute", "second"])), name="model_window_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="model",
            constraint=models.CheckConstraint(
                condition=models.Q(("token_policy__in", ["portfolio", "expected", "max_tokens"])),
                name="model_token_policy_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="provider",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rpm__isnull", True), ("rpm__gte", 1), _connector="OR"),
                    models.Q(("tpm__isnull", True), ("tpm__gte", 1), _connector="OR"),
                ),
                name="provider_rates_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rpm__isnull", True), ("rpm__gte", 1), _connector="OR"),
                    models.Q(("tpm__isnull", True), ("tpm__gte", 1), _connector="OR"),
                ),
                name="tier_rates_positive",
            ),
        ),
        migrations.AddConstraint(
            model_name="bucketturn",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("blocked_by", None), ("blocked_until", None)),
                    models.Q(("blocked_by__isnull", False), ("blocked_until__isnull", False)),
                    _connector="OR",
                ),
                name="bucketturn_blocked_until",
            ),
        ),
        migrations.AddField(
            model_name="incident",
            name="pool",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                help_text="Empty: all models of the provider.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="incidents",
                to="llmjobs.model",
                verbose_name="model",
            ),
        ),
        migrations.AddField(
            model_name="incident",
            name="provider",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="incidents",
                to="llmjobs.provider",
            ),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(
                    ("opening_told_at", None),
                    models.Q(("closed_at__isnull", False), ("closing_told_at", None)),
                    _connector="OR",
                ),
                fields=["tell_again_at"],
                name="incident_untold",
            ),
        ),
        migrations.AddConstraint(
            model_name="incident",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed_at", None)),
                fields=("provider", "pool"),
                name="incident_open_once",
                nulls_distinct=False,
            ),
        ),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(EDITS, EDITS_REVERSE),
        migrations.RunSQL(BIRTHS, BIRTHS_REVERSE),
        migrations.RunSQL(LIMITS, LIMITS_REVERSE),
        migrations.RunSQL(BUCKETS, "delete from llmjobs_bucketturn"),
    ]
