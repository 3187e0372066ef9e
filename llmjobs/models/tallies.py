"""What happened: how many jobs came, started and ended, what attempts used and how long they took, by time.

TallyChange is appended by the statement triggers on Job and Attempt, in the transaction that changes them, one row a
statement, with one entry in each array a job. Tally, TallyTime and ClientDay are what that comes to: one worker at a
time folds the changes in (`tallying.py`), and nobody else writes them. TierSample says how the queue stood, every 15
seconds (`samples.py`). Invariant: what was tallied is never taken back; retention, erasure and later corrections do not
touch it. What is put in as already over (imports, factories) did not happen here, and counts as submitted alone.

No keys in the database: rows of a tier or model that was deleted say nothing, and nobody waits for a key's lock.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from llmjobs.models.pools import Model
from llmjobs.models.tenants import Client, Tier


class TallyChange(models.Model):
    """What one statement did. `of` a job: its word is `submitted`, `started`, `retried` (started after a failure) or
    its end. `of` an attempt that ended: its outcome, or `rate_limited`, of one that was rejected with a 429.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    of = models.CharField(max_length=8)
    pools = ArrayField(models.BigIntegerField())
    tiers = ArrayField(models.BigIntegerField())
    clients = ArrayField(models.BigIntegerField(null=True), null=True)
    words = ArrayField(models.TextField())
    waits_s = ArrayField(models.FloatField(null=True), null=True)
    runs_s = ArrayField(models.FloatField(null=True), null=True)
    first_tokens_s = ArrayField(models.FloatField(null=True), null=True)
    input_tokens = ArrayField(models.IntegerField(null=True), null=True)
    output_tokens = ArrayField(models.IntegerField(null=True), null=True)
    usd = ArrayField(models.DecimalField(max_digits=14, decimal_places=8, null=True), null=True)


class TallyMark(models.Model):
    """How far the changes were folded: one row. The bounds are the inbox's (`ShardTurn`)."""

    id = models.SmallIntegerField(primary_key=True)
    folded_to = models.BigIntegerField()
    folded_at = models.DateTimeField(db_default=Now())
    bound_id = models.BigIntegerField(db_default=0)
    bound_xid = models.BigIntegerField(db_default=0)
    next_bound_id = models.BigIntegerField(db_default=0)
    next_bound_xid = models.BigIntegerField(db_default=0)
    next_bound_at = models.DateTimeField(db_default=Now())
    sweep_from = models.BigIntegerField(db_default=0, help_text="No change has a smaller id.")
    swept_at = models.DateTimeField(db_default=Now(), help_text="When changes behind the bound were last looked for.")


class Tally(models.Model):
    """So often that happened in the period that begins `at`. Of minutes and ten minutes by tier, of days by pool, and
    for ever (period 0, at the epoch) by both.
    """

    id = models.BigAutoField(primary_key=True)
    period_s = models.IntegerField()
    at = models.DateTimeField()
    pool = models.ForeignKey(Model, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    of = models.CharField(max_length=8, help_text="job, or attempt.")
    word = models.CharField(max_length=24)
    number = models.BigIntegerField()
    input_tokens = models.BigIntegerField(db_default=0)
    output_tokens = models.BigIntegerField(db_default=0)
    usd = models.DecimalField(max_digits=20, decimal_places=8, db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="tally_grain", fields=["period_s", "at", "pool", "tier", "of", "word"], nulls_distinct=False
            )
        ]


class TallyTime(models.Model):
    """So many took less than `le_s` seconds, and no less than the bound before it. Of minutes and ten minutes
    over all, and for ever by pool and tier.

    `wait`: from when a job might have started until it was claimed, of those that started. `run` and `first_token`:
    from when the call was sent, of attempts that completed.
    """

    id = models.BigAutoField(primary_key=True)
    period_s = models.IntegerField()
    at = models.DateTimeField()
    pool = models.ForeignKey(Model, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    measure = models.CharField(max_length=12)
    le_s = models.FloatField(help_text="Infinity: beyond the last bound.")
    number = models.BigIntegerField()
    sum_s = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="tallytime_grain",
                fields=["period_s", "at", "pool", "tier", "measure", "le_s"],
                nulls_distinct=False,
            )
        ]


class ClientDay(models.Model):
    """What a client submitted and used on a day (UTC): an attempt counts on the day on which it ended."""

    id = models.BigAutoField(primary_key=True)
    client = models.ForeignKey(Client, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    day = models.DateField()
    jobs = models.BigIntegerField(db_default=0, help_text="Submitted.")
    attempts = models.BigIntegerField(db_default=0)
    input_tokens = models.BigIntegerField(db_default=0)
    output_tokens = models.BigIntegerField(db_default=0)
    usd = models.DecimalField(max_digits=20, decimal_places=8, db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(name="clientday_of_day", fields=["day", "client"])]

    def __str__(self) -> str:
        return f"{self.client_id}: {self.day}"


class TierSample(models.Model):
    """How a tier's queue stood at a moment. Every 15 seconds for two hours, then the last of each minute."""

    pk = models.CompositePrimaryKey("tier", "at")
    tier = models.ForeignKey(Tier, on_delete=models.CASCADE, db_constraint=False, db_index=False)
    at = models.DateTimeField()
    queued = models.BigIntegerField()
    running = models.BigIntegerField()
    scheduled = models.BigIntegerField()
    oldest_s = models.FloatField(null=True, help_text="For how long its oldest queued job had waited.")
