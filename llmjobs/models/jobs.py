"""Jobs, what was asked, what came back, and the events that viewers read.

Job is thin and hot: a claim rewrites it. Body, result and attempts stand beside it. The state is written by the
verbs of `queue.py` alone; the CHECKs make illegal rows impossible whoever writes. Tables that refer to a job have
no foreign key in the database: its check would lock the job's row at every event. The verbs write them with the
job, and retention removes them with it.
"""

import json
from collections.abc import AsyncGenerator, Generator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from llmjobs.ids import uuid7
from llmjobs.models.pools import Model
from llmjobs.models.tenants import Client, Tier
from llmjobs.states import TERMINAL, Endpoint, EventType, Priority, Size, State, StreamEvent

PRIORITIES = [(priority.value, priority.word) for priority in Priority]
SIZES = [(size.value, size.word) for size in Size]
STATES = [(state.value, state.value) for state in State]
# What a job is shown with, and handed to the host with: one query instead of seven.
JOB_RELATED = ("pool__provider", "home", "client", "tier", "request", "result")


class Job(models.Model):
    id = models.BigAutoField(primary_key=True)
    public_id = models.UUIDField(unique=True, default=uuid7, editable=False)
    pool = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="jobs", verbose_name="model", db_index=False)
    client = models.ForeignKey(Client, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, related_name="jobs", db_index=False)
    endpoint = models.CharField(max_length=32, choices=[(e.value, e.value) for e in Endpoint])
    priority = models.PositiveSmallIntegerField(choices=PRIORITIES)
    size = models.PositiveSmallIntegerField(choices=SIZES)
    lane_order = models.BigIntegerField(help_text="Place in its lane. A retry keeps it, a requeue takes a new one.")
    state = models.CharField(max_length=16, choices=STATES)

    attempt = models.PositiveIntegerField(db_default=0, help_text="Rises at every claim; with the id it is the lease.")
    failures = models.PositiveIntegerField(db_default=0, help_text="Attempts that ended in error or a lost lease.")
    epoch = models.PositiveIntegerField(db_default=1, help_text="Rises with every change of state; numbers events.")
    worker_id = models.UUIDField(null=True, help_text="Who holds it; only while running.")
    cancel_requested_at = models.DateTimeField(null=True)

    est_input_tokens = models.PositiveIntegerField()
    est_output_tokens = models.PositiveIntegerField()
    est_cost = models.FloatField(help_text="Weighted tokens: input + output as priced.")
    max_output_tokens = models.PositiveIntegerField(
        null=True, help_text="The most that the request allows; null: unsaid."
    )
    est_usd = models.DecimalField(max_digits=14, decimal_places=8, null=True, help_text="Null: no price is known.")
    home = models.ForeignKey(
        Model,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
        help_text="The model that was asked for, of a job that a fallback took.",
    )

    has_webhook = models.BooleanField(db_default=False, help_text="Its end is told to the URL of its request.")
    has_handler = models.BooleanField(db_default=False, help_text="Its end is told to a function of the host project.")
    keeps_partial = models.BooleanField(
        db_default=False, help_text="on_interrupt: keep. A stream that breaks ends it, with what had come."
    )

    max_attempts = models.PositiveSmallIntegerField()
    timeout_s = models.FloatField()
    retry_for_s = models.FloatField()
    created_at = models.DateTimeField(db_default=Now())
    available_at = models.DateTimeField(db_default=Now())
    retry_until = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True, help_text="Of the latest attempt.")
    finished_at = models.DateTimeField(null=True)

    if TYPE_CHECKING:  # for hosts that check types without Django's plugin; `result` raises before there is one
        request: "JobRequest"
        result: "JobResult"

    class Meta:
        ordering = ["-id"]
        permissions = [
            ("requeue_job", "Can requeue jobs"),
            ("cancel_job", "Can cancel jobs"),
            ("reprioritize_job", "Can change the priority of jobs"),
            ("move_job", "Can move jobs to another model"),
            ("discard_job", "Can discard dead letters"),
            ("erase_job", "Can erase what finished jobs asked and answered"),
            ("export_job", "Can export jobs"),
            ("view_job_content", "Can see prompts and outputs"),
        ]
        constraints = [
            models.CheckConstraint(name="job_state_known", condition=Q(state__in=list(State))),
            models.CheckConstraint(
                name="job_running_iff_held",
                condition=Q(state="running", worker_id__isnull=False) | (~Q(state="running") & Q(worker_id=None)),
            ),
            models.CheckConstraint(
                name="job_terminal_iff_finished",
                condition=Q(state__in=sorted(TERMINAL), finished_at__isnull=False)
                | (~Q(state__in=sorted(TERMINAL)) & Q(finished_at=None)),
            ),
            models.CheckConstraint(
                name="job_running_was_started",
                condition=~Q(state="running") | Q(started_at__isnull=False, attempt__gte=1),
            ),
            models.CheckConstraint(name="job_failures_within_attempts", condition=Q(failures__lte=F("attempt"))),
            models.CheckConstraint(
                name="job_priority_and_size_known",
                condition=Q(priority__in=list(Priority), size__in=list(Size)),
            ),
            models.CheckConstraint(
                name="job_bounds_positive",
                condition=Q(max_attempts__gte=1, timeout_s__gt=0, retry_for_s__gte=0, est_cost__gte=0),
            ),
            models.CheckConstraint(name="job_endpoint_known", condition=Q(endpoint__in=list(Endpoint))),
        ]
        indexes = [
            # The heads of a lane, in FIFO order. The claim reads it from the lane's head_order on.
            models.Index(
                name="job_ready",
                fields=["pool", "client", "priority", "size", "lane_order"],
                include=[
                    "id",
                    "est_cost",
                    "est_input_tokens",
                    "est_output_tokens",
                    "max_output_tokens",
                ],  # all that the order needs: a head costs no look at its row
                condition=Q(state="queued"),
            ),
            models.Index(name="job_scheduled", fields=["available_at"], condition=Q(state="scheduled")),
            # The oldest of all that are queued, for the statistics. With a condition that nobody else states: where
            # ANALYZE saw an empty table, a walk through all of it looks free, and a claim's lookup by lane took it.
            models.Index(name="job_queued_since", fields=["available_at"], condition=Q(state="queued", epoch__gte=0)),
            # The same by tier: how long the oldest of each has waited. Its condition keeps it apart from the one above.
            models.Index(
                name="job_queued_of_tier",
                fields=["tier", "available_at"],
                condition=Q(state="queued", attempt__gte=0),
            ),
            # Retries that wait to be claimed: of which a pool has only so many at once.
            models.Index(
                name="job_retrying", fields=["pool", "available_at"], condition=Q(state="queued", failures__gt=0)
            ),
            models.Index(name="job_running", fields=["worker_id"], condition=Q(state="running")),
            # What a fallback took and has not started: for how many more it may take.
            models.Index(name="job_away", fields=["pool", "home"], condition=Q(state="queued", home__isnull=False)),
            models.Index(
                name="job_expiring",
                fields=["expires_at"],
                condition=Q(state__in=["queued", "scheduled"], attempt=0, expires_at__isnull=False),
            ),
            models.Index(name="job_of_client", fields=["client", "-id"]),
            # By id among those of one moment: a bulk cancel ends all its jobs at one, retention takes some at a time.
            models.Index(name="job_finished", fields=["finished_at", "id"], condition=Q(finished_at__isnull=False)),
            # The lists that operators open: a page of each is a short range.
            models.Index(name="job_dead", fields=["-id"], condition=Q(state__in=["dead", "failed"])),
            models.Index(name="job_stopped", fields=["state", "-id"], condition=Q(state__in=["cancelled", "expired"])),
        ]

    def __str__(self) -> str:
        return str(self.public_id)

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL

    # For hosts: what came back, as of when this job was read. `result` has the rest of it.

    @property
    def output(self) -> Any:
        """The provider's own response body; None before its end, and where there was none."""
        result: JobResult | None = getattr(self, "result", None)
        if result is None or result.output is None or not self.is_terminal:
            return None
        return json.loads(result.output)

    @property
    def output_text(self) -> str:
        """The answer's text, or what there was of it before a break; "" while it runs: see `stream`."""
        result: JobResult | None = getattr(self, "result", None)
        return result.output_text if result is not None and self.is_terminal else ""

    # Followed by a host. A table may not know who follows it: that stands above it, and is looked up when it is used.

    def stream(self, *, after: int = 0) -> Generator[StreamEvent, None, None]:
        """Its events as they come, from the first or after number `after`, until it has ended: status, delta, reset,
        done, as the WebSocket sends them. Break out of it at any time; to be sure of when its connection is closed
        then, wrap it in contextlib.closing.

        Raises NotAllowed for a job whose transaction is still open, DatabaseUnavailable where Postgres stays away.
        """
        events: Generator[StreamEvent, None, None] = import_module("llmjobs.job_streams").stream(self, after=after)
        return events

    def astream(self, *, after: int = 0) -> AsyncGenerator[StreamEvent, None]:
        """`stream` for coroutines: `async for event in job.astream()`."""
        events: AsyncGenerator[StreamEvent, None] = import_module("llmjobs.job_streams").astream(self, after=after)
        return events

    def wait(self, timeout_s: float | None = None) -> Self:
        """Returns this job, read again, once it has ended. Raises WaitTimedOut, a TimeoutError with the `state` that
        it is in, after `timeout_s` seconds; None: however long it takes. Else as `stream`.
        """
        import_module("llmjobs.job_streams").wait(self, timeout_s)
        return self

    async def await_(self, timeout_s: float | None = None) -> Self:
        """`wait` for coroutines: `await job.await_(timeout_s=60)`."""
        await import_module("llmjobs.job_streams").await_(self, timeout_s)
        return self


class JobRequest(models.Model):
    """What was asked. `body` is JSON text as it came: jsonb would reorder its keys, which models notice.

    Empty: it was erased, and the row is kept for its idempotency key alone.
    """

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="request"
    )
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    body = models.TextField()
    prompt_hash = models.CharField(max_length=71, help_text="sha256: of endpoint, model and body.")
    metadata = models.JSONField(db_default={})
    user = models.CharField(max_length=256, null=True)
    max_cost_usd = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    idempotency_key = models.CharField(max_length=255, null=True)
    fingerprint = models.CharField(max_length=64, null=True, help_text="Of the whole submission.")
    key_fingerprint = models.CharField(
        max_length=64, null=True, help_text="Of the submission that brought the key, where it joined this job."
    )
    api_key_id = models.BigIntegerField(null=True, help_text="The key that it was submitted with; null: none.")
    webhook_url = models.TextField(null=True)
    on_settled = models.CharField(max_length=255, null=True, help_text="A function's dotted path, in the host project.")
    traceparent = models.CharField(
        max_length=55, null=True, help_text="The trace that its attempts go on with, as W3C has it; null: none."
    )
    task = models.TextField(
        null=True, help_text="JSON: the task of the host's TASKS that made it, its arguments included; null: none."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="request_idempotency_key",
                fields=["client", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
            )
        ]
        # Equal requests of a client, newest first: for those that join one.
        indexes = [
            models.Index(name="request_prompt", fields=["client", "prompt_hash", "-job"]),
            # For operators who search. Jobs without metadata, or without an end user, pay nothing for these.
            GinIndex(
                fields=["metadata"],
                opclasses=["jsonb_path_ops"],
                name="request_metadata",
                condition=~Q(metadata={}),
                fastupdate=False,  # a pending list is cleared by some submit, which would wait for it
            ),
            models.Index(name="request_user", fields=["user", "-job"], condition=Q(user__isnull=False)),
        ]

    def __str__(self) -> str:
        return str(self.job_id)


class JobResult(models.Model):
    """What came back, of the latest attempt that ended. `output` is the provider's body, as JSON text."""

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="result"
    )
    output = models.TextField(null=True)
    output_text = models.TextField(db_default="")
    usage = models.JSONField(null=True)
    cost_usd = models.DecimalField(max_digits=14, decimal_places=8, null=True, help_text="Of all attempts together.")
    error_code = models.CharField(max_length=128, null=True)
    error_message = models.TextField(null=True)
    error_class = models.CharField(max_length=16, null=True)
    provider_status = models.PositiveSmallIntegerField(null=True)
    error_attempt = models.PositiveIntegerField(null=True)

    class Meta:
        # Written where there is an error; an answer pays nothing.
        indexes = [
            models.Index(name="result_error", fields=["error_code", "-job"], condition=Q(error_code__isnull=False))
        ]

    def __str__(self) -> str:
        return str(self.job_id)


class JobEvent(models.Model):
    """Append-only. What every viewer reads, in the order of `seq`, which is the job's own numbering."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, related_name="events", db_index=False)
    seq = models.BigIntegerField()
    type = models.CharField(max_length=8, choices=[(t.value, t.value) for t in EventType])
    data = models.JSONField(db_default={})
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["job_id", "seq"]
        constraints = [
            models.UniqueConstraint(name="event_of_job", fields=["job", "seq"]),
            models.CheckConstraint(name="event_type_known", condition=Q(type__in=list(EventType))),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}:{self.seq}"
