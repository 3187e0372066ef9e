"""When no worker claimed anything, because an operator said so. A row a pause; the open one is the switch.

Every claim reads it (fair_order.sql), so it holds from the next claim on, for all workers. Only `pauses.py` writes it.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

BY_CHARS_MAX, REASON_CHARS_MAX = 255, 500


class ClaimsPause(models.Model):
    """All claims are paused while one of these is open: `resumed_at` is null. There is one such row at most."""

    since = models.DateTimeField(db_default=Now(), editable=False)
    by = models.CharField("paused by", max_length=BY_CHARS_MAX)
    reason = models.CharField(max_length=REASON_CHARS_MAX, blank=True)
    resumed_at = models.DateTimeField(null=True, blank=True)
    resumed_by = models.CharField(max_length=BY_CHARS_MAX, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "pause of all claims"
        verbose_name_plural = "pauses of all claims"
        constraints = [
            # And the index that a claim looks at: it is empty, or has one row.
            models.UniqueConstraint(
                name="claimspause_open", fields=["resumed_at"], condition=Q(resumed_at=None), nulls_distinct=False
            )
        ]

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d %H:%M} by {self.by}"
