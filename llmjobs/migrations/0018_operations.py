"""Operations: what operators do to many jobs."""

import uuid

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# Each item is written once more, and by the index of its key alone: with room in its page that costs no index.
STORAGE = "alter table llmjobs_operationitem set (fillfactor = 70)"
STORAGE_REVERSE = "alter table llmjobs_operationitem reset (fillfactor)"


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0017_dead_letters"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Operation",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("verb", models.CharField(max_length=16)),
                (
                    "params",
                    models.JSONField(db_default={}, help_text="Of the verb: the priority, the model, the format."),
                ),
                ("selection", models.TextField(db_default="", help_text="Which jobs, as people read it.")),
                ("reason", models.CharField(db_default="", max_length=200)),
                (
                    "username",
                    models.CharField(db_default="", help_text="Stays when the user has gone.", max_length=150),
                ),
                (
                    "token",
                    models.UUIDField(
                        default=uuid.uuid4, help_text="Of the question: one answer starts one operation.", unique=True
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("stopped", "Stopped"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                        ],
                        db_default="running",
                        max_length=8,
                    ),
                ),
                ("total", models.PositiveIntegerField(db_default=0)),
                ("changed", models.PositiveIntegerField(db_default=0)),
                ("skipped", models.JSONField(db_default={}, help_text="How many jobs were left alone, by reason.")),
                ("error", models.TextField(db_default="")),
                ("rate_per_s", models.FloatField(help_text="Jobs a second; null: as fast as it goes.", null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("started_at", models.DateTimeField(help_text="Of the first batch.", null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                ("last_step_at", models.DateTimeField(null=True)),
                (
                    "next_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), help_text="Not before: its pace."
                    ),
                ),
                ("done_to", models.BigIntegerField(db_default=0, help_text="This round has come to this job.")),
                (
                    "round",
                    models.PositiveSmallIntegerField(
                        db_default=1, help_text="Jobs that others held are tried again in the next."
                    ),
                ),
                (
                    "batch",
                    models.PositiveSmallIntegerField(
                        db_default=500, help_text="Jobs at once; fewer after a batch that failed."
                    ),
                ),
                ("failures", models.PositiveSmallIntegerField(db_default=0, help_text="Of batches, in a row.")),
                (
                    "is_forgotten",
                    models.BooleanField(db_default=False, help_text="Its items are gone: it can't be undone any more."),
                ),
                (
                    "undoes",
                    models.OneToOneField(
                        help_text="The operation that this undoes.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="undone_by",
                        to="llmjobs.operation",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="OperationItem",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "operation", "job_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("job_id", models.BigIntegerField()),
                (
                    "did",
                    models.CharField(
                        help_text='"changed", or why it was left alone; null: to do.', max_length=120, null=True
                    ),
                ),
                (
                    "was",
                    models.CharField(
                        help_text="What the verb changed: a state, a priority, a model.", max_length=32, null=True
                    ),
                ),
                (
                    "epoch",
                    models.BigIntegerField(
                        help_text="Of the job after it was changed. Of an undo's: as it must be.", null=True
                    ),
                ),
                (
                    "target",
                    models.CharField(help_text="Of an undo's: what it is to become again.", max_length=32, null=True),
                ),
                (
                    "operation",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="llmjobs.operation",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(condition=models.Q(("state", "running")), fields=["next_at"], name="operation_due"),
        ),
        migrations.AddIndex(
            model_name="operation",
            index=models.Index(
                condition=models.Q(("is_forgotten", False)), fields=["finished_at"], name="operation_remembered"
            ),
        ),
        migrations.AddConstraint(
            model_name="operation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at", None), ("state", "running")),
                    models.Q(models.Q(("state", "running"), _negated=True), ("finished_at__isnull", False)),
                    _connector="OR",
                ),
                name="operation_over_iff_finished",
            ),
        ),
        migrations.AddConstraint(
            model_name="operation",
            constraint=models.CheckConstraint(
                condition=models.Q(("rate_per_s", None), ("rate_per_s__gt", 0), _connector="OR"), name="operation_pace"
            ),
        ),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
