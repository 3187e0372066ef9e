"""What operators do to many jobs: an operation, and the jobs that it is about.

`operations.py` alone writes these. The jobs of an operation are fixed when it starts: what comes to match its filter
later stays out. An item tells what became of its job, and what the job was before, for as long as that can be undone.
"""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class OperationState(models.TextChoices):
    RUNNING = "running"
    STOPPED = "stopped"  # by somebody; it may go on
    DONE = "done"
    FAILED = "failed"  # its batches failed again and again; it may go on


class Operation(models.Model):
    """Who does what to how many jobs, why, and how far it has come."""

    verb = models.CharField(max_length=16)
    undoes = models.OneToOneField(
        "self",
        on_delete=models.CASCADE,
        null=True,
        related_name="undone_by",
        help_text="The operation that this undoes.",
    )
    params = models.JSONField(db_default={}, help_text="Of the verb: the priority, the model, the format.")
    selection = models.TextField(db_default="", help_text="Which jobs, as people read it.")
    reason = models.CharField(max_length=200, db_default="")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    username = models.CharField(max_length=150, db_default="", help_text="Stays when the user has gone.")
    token = models.UUIDField(
        unique=True, default=uuid.uuid4, help_text="Of the question: one answer starts one operation."
    )
    state = models.CharField(max_length=8, choices=OperationState, db_default=OperationState.RUNNING)
    total = models.PositiveIntegerField(db_default=0)
    changed = models.PositiveIntegerField(db_default=0)
    skipped = models.JSONField(db_default={}, help_text="How many jobs were left alone, by reason.")
    error = models.TextField(db_default="")
    rate_per_s = models.FloatField(null=True, help_text="Jobs a second; null: as fast as it goes.")

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, help_text="Of the first batch.")
    finished_at = models.DateTimeField(null=True)
    last_step_at = models.DateTimeField(null=True)
    next_at = models.DateTimeField(db_default=Now(), help_text="Not before: its pace.")
    done_to = models.BigIntegerField(db_default=0, help_text="This round has come to this job.")
    round = models.PositiveSmallIntegerField(
        db_default=1, help_text="Jobs that others held are tried again in the next."
    )
    batch = models.PositiveSmallIntegerField(db_default=500, help_text="Jobs at once; fewer after a batch that failed.")
    failures = models.PositiveSmallIntegerField(db_default=0, help_text="Of batches, in a row.")
    is_forgotten = models.BooleanField(db_default=False, help_text="Its items are gone: it can't be undone any more.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="operation_over_iff_finished",
                condition=Q(state="running", finished_at=None) | (~Q(state="running") & Q(finished_at__isnull=False)),
            ),
            models.CheckConstraint(name="operation_pace", condition=Q(rate_per_s=None) | Q(rate_per_s__gt=0)),
        ]
        indexes = [
            models.Index(name="operation_due", fields=["next_at"], condition=Q(state="running")),
            models.Index(name="operation_remembered", fields=["finished_at"], condition=Q(is_forgotten=False)),
        ]

    def __str__(self) -> str:
        what = f"Undo {self.verb}" if self.undoes_id else self.verb.capitalize()
        return f"{what} {self.total:,} {'job' if self.total == 1 else 'jobs'}"

    @property
    def is_over(self) -> bool:
        return self.state != OperationState.RUNNING

    @property
    def skipped_count(self) -> int:
        return sum(self.skipped.values())

    @property
    def left(self) -> int:
        """Jobs that it has not come to."""
        return max(0, self.total - self.changed - self.skipped_count)


class OperationItem(models.Model):
    """A job of an operation. Without foreign keys in the database: a check a row would make 100,000 of them slow."""

    pk = models.CompositePrimaryKey("operation", "job_id")
    operation = models.ForeignKey(
        Operation, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="items"
    )
    job_id = models.BigIntegerField()
    did = models.CharField(max_length=120, null=True, help_text='"changed", or why it was left alone; null: to do.')
    was = models.CharField(max_length=32, null=True, help_text="What the verb changed: a state, a priority, a model.")
    epoch = models.BigIntegerField(null=True, help_text="Of the job after it was changed. Of an undo's: as it must be.")
    target = models.CharField(max_length=32, null=True, help_text="Of an undo's: what it is to become again.")

    def __str__(self) -> str:
        return f"{self.operation_id}: {self.job_id}"
