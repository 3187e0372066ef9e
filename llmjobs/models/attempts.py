"""The attempts made: who ran a job, when, at which price, and what followed. The ledger of all that was spent.

Written by the verbs of `queue.py` alone, as jobs are: the claim makes a row, the end of the attempt closes it. No
foreign key in the database, as for all that stands beside a job (jobs.py).
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.models.jobs import Job
from llmjobs.models.pools import Model
from llmjobs.models.tenants import Client, Tier


class Attempt(models.Model):
    """The ledger: one row a claim, written by the claim, closed when the attempt ends. What was spent is read here."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, related_name="attempts", db_index=False)
    number = models.PositiveIntegerField()
    pool = models.ForeignKey(Model, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    client = models.ForeignKey(
        Client,
        on_delete=models.PROTECT,
        db_constraint=False,
        db_index=False,
        null=True,
        help_text="Null: unknown, of a job that was gone before attempts told.",
    )
    tier = models.ForeignKey(Tier, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    worker_id = models.UUIDField()
    waited_s = models.FloatField(help_text="From when the job might have started until it was claimed.")
    charged = models.FloatField(help_text="Weighted tokens, charged at claim.")
    flow_weight = models.FloatField()
    tier_weight = models.FloatField()
    reserved = models.FloatField(
        db_default=0, help_text="Tokens taken from the limits, until it is known what was used."
    )
    is_retry = models.BooleanField(db_default=False, help_text="Made after a failure of the job's.")
    slot_s = models.FloatField(db_default=0, help_text="How long after the claim it was to be sent.")
    claimed_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)
    first_token_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=24, null=True)
    decision = models.TextField(null=True, help_text="What followed, in words.")
    error_code = models.CharField(max_length=128, null=True)
    error_message = models.TextField(null=True)
    provider_status = models.PositiveSmallIntegerField(null=True)
    provider_request_id = models.CharField(max_length=255, null=True)
    provider_response_id = models.CharField(
        max_length=255, null=True, help_text="Of a response in the background: a later attempt picks it up."
    )
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cost = models.FloatField(null=True, help_text="Weighted tokens, as used.")
    cost_usd = models.DecimalField(max_digits=14, decimal_places=8, null=True)
    span_id = models.CharField(max_length=16, null=True, help_text="In its job's trace: the next attempt links to it.")

    class Meta:
        ordering = ["job_id", "number"]
        constraints = [
            models.UniqueConstraint(name="attempt_of_job", fields=["job", "number"]),
            models.CheckConstraint(
                name="attempt_ended_iff_outcome",
                condition=Q(ended_at=None, outcome=None) | Q(ended_at__isnull=False, outcome__isnull=False),
            ),
        ]
        indexes = [
            models.Index(name="attempt_of_pool", fields=["pool", "-claimed_at"]),
            models.Index(name="attempt_of_client", fields=["client", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.job_id}.{self.number}"
