"""Incidents of every kind: what operators must know, and when somebody looked last.

What the fold inserts is a breaker, whatever version its worker has.
"""

import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models
from django.db.models import Q

KINDS = [
    ("breaker", "provider stopped"),
    ("no_worker", "no worker"),
    ("backlog", "backlog"),
    ("blocked", "rate limit"),
    ("claims_paused", "claims paused"),
    ("dead_letters", "dead letters"),
    ("budget", "budget"),
    ("webhooks", "webhooks"),
    ("snapshot", "old snapshot"),
]
LEVELS = [("warning", "warning"), ("critical", "critical")]
ABOUT = ["kind", "level", "provider", "pool", "tier", "client"]


def about(to, related_name="+", **more):
    return models.ForeignKey(
        db_constraint=False, null=True, on_delete=django.db.models.deletion.CASCADE, related_name=related_name,
        to=f"llmjobs.{to}", **more,
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0018_operations"),
    ]

    operations = [
        migrations.CreateModel(
            name="Watch",
            fields=[
                ("id", models.SmallIntegerField(primary_key=True, serialize=False)),
                ("watched_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("past_xid", models.BigIntegerField(db_default=0)),
                ("next_past_xid", models.BigIntegerField(db_default=0)),
                ("next_past_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"verbose_name_plural": "watch"},
        ),
        migrations.AddField(
            model_name="tier",
            name="backlog_target_s",
            field=models.FloatField(
                blank=True,
                help_text="Operators are told when a job of this tier has waited longer; empty: LLMJOBS_BACKLOG_TARGET_S.",
                null=True,
                validators=[
                    django.core.validators.MinValueValidator(1),
                    django.core.validators.MaxValueValidator(2592000),
                ],
                verbose_name="backlog target, s",
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(
                condition=Q(
                    ("backlog_target_s", None),
                    Q(("backlog_target_s__gte", 1), ("backlog_target_s__lte", 2592000)),
                    _connector="OR",
                ),
                name="tier_backlog_target_within_bounds",
            ),
        ),
        migrations.AddField(
            model_name="incident",
            name="kind",
            field=models.CharField(choices=KINDS, db_default="breaker", default="breaker", max_length=16),
        ),
        migrations.AddField(
            model_name="incident",
            name="level",
            field=models.CharField(choices=LEVELS, db_default="critical", default="critical", max_length=8),
        ),
        migrations.AddField(model_name="incident", name="tier", field=about("tier", db_index=False)),
        migrations.AddField(model_name="incident", name="client", field=about("client", db_index=False)),
        migrations.AddField(
            model_name="incident",
            name="seen_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="The latest look of a watch that saw it, roughly.",
            ),
        ),
        migrations.AlterField(model_name="incident", name="provider", field=about("provider", "incidents")),
        migrations.AlterField(
            model_name="incident",
            name="reason",
            field=models.CharField(
                blank=True,
                choices=[
                    ("rate_limit", "Rate Limit"),
                    ("provider_quota", "Quota"),
                    ("provider_auth", "Auth"),
                    ("provider_down", "Down"),
                ],
                db_default="",
                help_text="Of a breaker: why it opened.",
                max_length=16,
            ),
        ),
        migrations.AlterField(
            model_name="incident",
            name="words",
            field=models.TextField(
                blank=True,
                db_default="",
                help_text="Of a breaker: what the provider said; else what was seen last.",
            ),
        ),
        migrations.RemoveConstraint(model_name="incident", name="incident_open_once"),
        migrations.AddConstraint(
            model_name="incident",
            constraint=models.UniqueConstraint(
                condition=Q(("closed_at", None)), fields=ABOUT, name="incident_open_once", nulls_distinct=False
            ),
        ),
        migrations.AddConstraint(
            model_name="incident",
            constraint=models.CheckConstraint(
                condition=Q(Q(("kind", "breaker"), _negated=True), ("provider__isnull", False), _connector="OR"),
                name="incident_breaker_has_provider",
            ),
        ),
        # On the way back, first: what has no provider the table before can't hold.
        migrations.RunSQL(migrations.RunSQL.noop, "delete from llmjobs_incident where kind <> 'breaker'"),
    ]
