"""What is to be told of a job's end: webhooks to deliver, handlers to call.

A trigger on Job writes the rows in the transaction that ends the job, whoever ends it and by whatever road;
`webhooks.py` and `handlers.py` work them off. A job that is requeued ends again, and is told again: a row belongs to
one end, which is the job's epoch then.
"""

from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Coalesce, Lower, Now
from django.utils.translation import gettext_lazy as _

from llmjobs.models.jobs import Job
from llmjobs.models.tenants import Client

# Bounded, or the index could refuse a row, and with it the transaction that ends a job.
HOST_OF_URL = r"(?i)^https?://(?:[^/?#@]*@)?(\[[^]]{0,255}\]|[^/?#:]{0,255})"


class DeliveryState(models.TextChoices):
    PENDING = "pending", _("pending")
    DELIVERED = "delivered", _("delivered")
    FAILED = "failed", _("failed")


class CallState(models.TextChoices):
    PENDING = "pending", _("pending")
    DONE = "done", _("done")
    DEAD = "dead", _("dead")


class WebhookDelivery(models.Model):
    """One end of a job, to be told to one URL. `webhook-id` is made of job and epoch: a redelivery has the same."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, db_constraint=False, related_name="webhook_deliveries", db_index=False
    )
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    epoch = models.PositiveIntegerField(help_text="The job's, at the end that is told.")
    type = models.CharField(max_length=32, help_text="As in the body: job.completed …")
    url = models.TextField()
    receiver = models.GeneratedField(
        expression=Coalesce(Lower(Func(F("url"), Value(HOST_OF_URL), function="substring")), Value("")),
        output_field=models.TextField(),
        db_persist=True,
        help_text="The URL's host.",
    )
    state = models.CharField(max_length=16, choices=DeliveryState.choices, db_default=DeliveryState.PENDING)
    tries = models.PositiveIntegerField(db_default=0)
    created_at = models.DateTimeField(db_default=Now())
    retry_until = models.DateTimeField(null=True, help_text="Given up then; null: not tried yet.")
    next_at = models.DateTimeField(db_default=Now(), help_text="Due then, or taken by a worker until then.")
    tried_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True, help_text="Delivered, or given up.")
    status = models.PositiveSmallIntegerField(null=True, help_text="Of the receiver's last answer.")
    error = models.TextField(null=True, help_text="Of the last try, in words.")

    class Meta:
        verbose_name_plural = "webhook deliveries"
        ordering = ["-id"]
        permissions = [("redeliver_webhookdelivery", "Can redeliver webhooks")]
        constraints = [
            models.UniqueConstraint(name="delivery_of_end", fields=["job", "epoch"]),
            models.CheckConstraint(name="delivery_state_known", condition=Q(state__in=DeliveryState.values)),
            models.CheckConstraint(
                name="delivery_ended_iff_not_pending",
                condition=Q(state="pending", ended_at=None) | (~Q(state="pending") & Q(ended_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(name="delivery_due", fields=["next_at"], condition=Q(state="pending")),
            # Whose turn it is: clients one after the other, and of each its receivers.
            models.Index(
                name="delivery_of_receiver", fields=["client", "receiver", "next_at"], condition=Q(state="pending")
            ),
            models.Index(name="delivery_failed", fields=["-id"], condition=Q(state="failed")),
        ]

    def __str__(self) -> str:
        return f"{self.type} to {self.receiver}"


class HandlerCall(models.Model):
    """A function of the host project, to be called with one end of a job: in the settle's transaction, or later."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, db_constraint=False, related_name="handler_calls", db_index=False
    )
    epoch = models.PositiveIntegerField(help_text="The job's, at the end that is told.")
    handler = models.CharField(max_length=255, help_text="A function's dotted path.")
    state = models.CharField(max_length=16, choices=CallState.choices, db_default=CallState.PENDING)
    tries = models.PositiveIntegerField(db_default=0)
    created_at = models.DateTimeField(db_default=Now())
    next_at = models.DateTimeField(db_default=Now(), help_text="Due then, or taken by a worker until then.")
    ended_at = models.DateTimeField(null=True)
    error = models.TextField(null=True, help_text="The last exception, in one line.")

    class Meta:
        ordering = ["-id"]
        permissions = [("retry_handlercall", "Can call handlers again")]
        constraints = [
            models.UniqueConstraint(name="handlercall_of_end", fields=["job", "epoch"]),
            models.CheckConstraint(name="handlercall_state_known", condition=Q(state__in=CallState.values)),
            models.CheckConstraint(
                name="handlercall_ended_iff_not_pending",
                condition=Q(state="pending", ended_at=None) | (~Q(state="pending") & Q(ended_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(name="handlercall_due", fields=["next_at"], condition=Q(state="pending")),
            models.Index(name="handlercall_dead", fields=["-id"], condition=Q(state="dead")),
        ]

    def __str__(self) -> str:
        return f"{self.handler} of job {self.job_id}"
