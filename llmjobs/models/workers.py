"""The worker processes, as their own heartbeats tell. A row says how much a worker may hold, never what it holds."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Worker(models.Model):
    """One run of `runworker`. Its id is new at every start: a lease never passes to a successor by accident."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    version = models.CharField(max_length=32)
    slots = models.PositiveIntegerField()
    pools = ArrayField(models.CharField(max_length=128), default=list, blank=True, help_text="Empty: all.")
    tiers = ArrayField(models.CharField(max_length=64), default=list, blank=True, help_text="Empty: all.")
    is_draining = models.BooleanField(default=False, db_default=False)
    lease_lost_count = models.PositiveIntegerField(default=0, db_default=0)
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-heartbeat_at"]
        permissions = [("drain_worker", "Can drain workers"), ("pause_claims", "Can pause all claims")]
        constraints = [models.CheckConstraint(name="worker_has_slots", condition=Q(slots__gte=1))]
        indexes = [models.Index(name="worker_living", fields=["heartbeat_at"], condition=Q(stopped_at=None))]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
