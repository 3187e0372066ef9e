"""What is left of the limits: buckets, as turns; and what they looked like.

A bucket holds requests and tokens of a pool, of an account (a provider, whose models share it) or of a client. It is
written like the turns of `scheduling.py`: appended by the holder of the turnstile alone, the one before deleted.
Times in it are seconds of the Unix clock, by the database's clock, since all that is done with them is arithmetic.
"""

from django.db import models
from django.db.models import Q

from llmjobs.models.pools import Model


class BucketKind(models.IntegerChoices):
    POOL = 0
    ACCOUNT = 1
    CLIENT = 2


class BlockedBy(models.TextChoices):
    """Why a pool or an account starts nothing: the words of `blocked_by` in the API."""

    RATE_LIMIT = "rate_limit"  # the provider said "not now", and until when
    QUOTA = "provider_quota"
    AUTH = "provider_auth"
    DOWN = "provider_down"


class BucketTurn(models.Model):
    """How full a bucket is, what was learned of it, and whether its provider takes anything at all.

    `requests_at` and `tokens_at` are when it will have drained (GCRA's theoretical arrival time); see `ratelimits.py`.
    """

    pk = models.CompositePrimaryKey("kind", "of_id", "turn")
    kind = models.PositiveSmallIntegerField(choices=BucketKind)
    of_id = models.BigIntegerField(help_text="Of the model, the provider or the client.")
    turn = models.BigIntegerField()
    requests_at = models.FloatField(db_default=0)
    tokens_at = models.FloatField(db_default=0)
    tokens_due = models.FloatField(db_default=0, help_text="Used less reserved tokens, which the next claim puts in.")
    requests_rate = models.FloatField(null=True, help_text="A second, at which it drains; null: no such limit.")
    tokens_rate = models.FloatField(null=True)
    moved_at = models.FloatField(db_default=0, help_text="When something was last reserved.")
    opens_at = models.FloatField(null=True, help_text="When its next send may be claimed; null: now.")
    held_until = models.FloatField(
        null=True, help_text="Tokens are kept for who is next: claims that don't see it wait."
    )
    held_by = models.BigIntegerField(null=True, help_text="Of an account: the model whose next call they are kept for.")
    waits_since = models.FloatField(null=True, help_text="Of a pool: since when its next call finds no room.")
    # What was reserved and refused since it was made: the picture of a model is made of differences.
    requests = models.BigIntegerField(db_default=0)
    tokens = models.FloatField(db_default=0, help_text="Reserved, then corrected by what was used.")
    refusals = models.BigIntegerField(db_default=0, help_text="Calls that the provider answered with 429.")
    lies = models.BigIntegerField(db_default=0, help_text="Headers that made no sense, and changed nothing.")
    queued = models.IntegerField(db_default=0)
    running = models.IntegerField(db_default=0)
    # What was measured and learned.
    jitter_s = models.FloatField(db_default=0, help_text="How late calls left their workers lately, at most.")
    largest = models.FloatField(db_default=0, help_text="Tokens of the largest reservation lately.")
    learned = models.FloatField(
        db_default=4, help_text="The weight of what is known, in jobs: the first guess counts as 4, and 64 is the most."
    )
    mean_tokens = models.FloatField(db_default=0, help_text="Of completed jobs, input and output.")
    error_var = models.FloatField(db_default=65_536, help_text="Mean square of used less reserved tokens.")
    # What the provider said.
    requests_limit = models.FloatField(null=True, help_text="A minute; where its headers say less.")
    tokens_limit = models.FloatField(null=True)
    told_at = models.FloatField(db_default=0, help_text="When it said so.")
    requests_left = models.FloatField(null=True, help_text="What it said is left, which the next claim heeds.")
    tokens_left = models.FloatField(null=True)
    left_at = models.FloatField(db_default=0)
    rate_factor = models.FloatField(db_default=1, help_text="Halved by slow_down, as of factor_at; doubles by itself.")
    factor_at = models.FloatField(db_default=0)
    blocked_by = models.CharField(max_length=16, null=True, choices=BlockedBy)
    blocked_until = models.FloatField(null=True, help_text="Then one call is tried, if a breaker is open.")
    block_s = models.FloatField(db_default=0, help_text="How long it was blocked the last time.")
    strikes = models.IntegerField(db_default=0, help_text="Refused keys in a row.")
    downs = models.IntegerField(db_default=0, help_text="Failed connections and server errors in a row.")
    struck_at = models.FloatField(db_default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="bucketturn_blocked_until",
                condition=Q(blocked_by=None, blocked_until=None)
                | Q(blocked_by__isnull=False, blocked_until__isnull=False),
            ),
        ]


class PoolSample(models.Model):
    """A pool's bucket as it was at a moment: of the sums, the difference of two is what happened between."""

    pk = models.CompositePrimaryKey("pool", "at")
    pool = models.ForeignKey(Model, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    at = models.DateTimeField()
    requests = models.BigIntegerField()
    tokens = models.FloatField()
    refusals = models.BigIntegerField()
    queued = models.IntegerField()
    running = models.IntegerField()
    rpm = models.FloatField(help_text="Requests a minute that were allowed.")
    tpm = models.FloatField()
    blocked_by = models.CharField(max_length=16, null=True)
