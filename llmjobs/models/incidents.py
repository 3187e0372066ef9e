"""Incidents: what operators must know, from when it began until it was over; and when somebody looked last.

Who opens and closes: breakers the fold (sql/fold.sql), every other kind the watch (watch.py). Who marks as told:
`incidents.py`. Invariant: of one kind and level about the same things one incident is open at a time.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from llmjobs.models.buckets import BlockedBy
from llmjobs.models.pools import Model, Provider
from llmjobs.models.tenants import Client, Tier

WATCH_ID = 1


class Kind(models.TextChoices):
    """What is wrong. What each means and what to do is in `handbook.py`."""

    BREAKER = "breaker", _("provider stopped")
    NO_WORKER = "no_worker", _("no worker")
    BACKLOG = "backlog", _("backlog")
    BLOCKED = "blocked", _("rate limit")
    CLAIMS_PAUSED = "claims_paused", _("claims paused")
    DEAD_LETTERS = "dead_letters", _("dead letters")
    BUDGET = "budget", _("budget")
    WEBHOOKS = "webhooks", _("webhooks")
    SNAPSHOT = "snapshot", _("old snapshot")


class Level(models.TextChoices):
    WARNING = "warning", _("warning")
    CRITICAL = "critical", _("critical")


class Incident(models.Model):
    """Something that operators must know. They are told when it opens, and when it closes.

    Provider, pool, tier and client say what it is about: of these those that its kind has.
    """

    # The fold says neither: what it opens is a breaker, and stops a provider.
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.BREAKER, db_default=Kind.BREAKER)
    level = models.CharField(max_length=8, choices=Level, default=Level.CRITICAL, db_default=Level.CRITICAL)
    provider = models.ForeignKey(
        Provider, on_delete=models.CASCADE, db_constraint=False, null=True, related_name="incidents"
    )
    pool = models.ForeignKey(
        Model, on_delete=models.CASCADE, db_constraint=False, db_index=False, null=True, related_name="incidents",
        verbose_name="model", help_text="Empty: all models of the provider.",
    )  # fmt: skip
    tier = models.ForeignKey(
        Tier, on_delete=models.CASCADE, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    client = models.ForeignKey(
        Client, on_delete=models.CASCADE, db_constraint=False, db_index=False, null=True, related_name="+"
    )
    reason = models.CharField(
        max_length=16, choices=BlockedBy, blank=True, db_default="", help_text="Of a breaker: why it opened."
    )
    words = models.TextField(
        blank=True, db_default="", help_text="Of a breaker: what the provider said; else what was seen last."
    )
    opened_at = models.DateTimeField(db_default=Now())
    closed_at = models.DateTimeField(null=True)
    seen_at = models.DateTimeField(db_default=Now(), help_text="The latest look of a watch that saw it, roughly.")
    # Telling is at least once: a mark is set after it was done.
    opening_told_at = models.DateTimeField(null=True)
    closing_told_at = models.DateTimeField(null=True)
    tell_again_at = models.DateTimeField(db_default=Now(), help_text="Not before, after a failure to tell.")
    tell_failures = models.PositiveSmallIntegerField(db_default=0)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                name="incident_open_once",
                fields=["kind", "level", "provider", "pool", "tier", "client"],
                condition=Q(closed_at=None),
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                name="incident_breaker_has_provider",
                condition=~Q(kind=Kind.BREAKER) | Q(provider__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                name="incident_untold",
                fields=["tell_again_at"],
                condition=Q(opening_told_at=None) | Q(closed_at__isnull=False, closing_told_at=None),
            ),
        ]

    def __str__(self) -> str:
        if self.kind == Kind.BREAKER:
            return f"{self.pool or self.provider}: {self.reason}"
        about = [str(row) for row in (self.pool, self.tier, self.client) if row is not None]
        return ": ".join([str(Kind(self.kind).label).capitalize(), *about]) if self.kind in Kind.values else self.kind


class Watch(models.Model):
    """One row: when somebody looked last, and how far transactions had come some while ago.

    What holds a transaction number below `past_xid` has held it since before `next_past_at`, whoever may not see when
    it began. Both pairs move on together, each time that the newer one is old enough.
    """

    id = models.SmallIntegerField(primary_key=True)
    watched_at = models.DateTimeField(db_default=Now())
    past_xid = models.BigIntegerField(db_default=0)
    next_past_xid = models.BigIntegerField(db_default=0)
    next_past_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "watch"

    def __str__(self) -> str:
        return f"watched at {self.watched_at:%Y-%m-%d %H:%M:%S}"
