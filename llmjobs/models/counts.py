"""How many jobs there are: counted as they change, so that limits and statistics cost the same at any backlog.

JobCountChange is what happened: triggers on Job append to it, in the transaction that changes jobs, by whatever road.
JobCount is what that comes to, as far as it was counted: one worker at a time folds the changes in, about once a
second (`counts.py`). Invariant: JobCount + JobCountChange, read in one statement, is what a GROUP BY over Job would
say. No keys in the database: rows of a client that was deleted say nothing, and nobody waits for a key's lock.

Money goes the same way, for budgets. What jobs are expected to cost stands beside their number; what attempts did cost
is appended by triggers on Attempt, as changes in the state `spent`, and counted into Spending. One table of changes for
both, so that one reading sees an estimate leave and the cost come that takes its place.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.models.tenants import Client, Tier


class JobCount(models.Model):
    """Three grains: a client's by tier, priority and state; all clients' (no client); a client's total (only that).

    In the state `submitted` are all jobs that ever were, removed ones included.
    """

    id = models.BigAutoField(primary_key=True)
    client = models.ForeignKey(Client, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    priority = models.PositiveSmallIntegerField(null=True)
    state = models.CharField(max_length=16, null=True)
    jobs = models.BigIntegerField()
    tokens = models.BigIntegerField(help_text="Estimated: input and output.")
    usd = models.DecimalField(max_digits=20, decimal_places=8, db_default=0, help_text="Estimated dollars.")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="jobcount_grain", fields=["client", "tier", "priority", "state"], nulls_distinct=False
            )
        ]
        indexes = [
            models.Index(
                name="jobcount_largest", fields=["-jobs"], condition=Q(client__isnull=False, tier__isnull=True)
            )
        ]


class JobCountChange(models.Model):
    """By how much one statement changed a count. Appended by triggers, deleted by who counts.

    A transaction that stayed open gives its submits new ids when it commits, so that none comes behind the bound. What
    takes dollars away has a lower id than what brings them: of a late one that the bound cuts, too much counts.
    """

    id = models.BigAutoField(primary_key=True)
    client = models.ForeignKey(Client, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, null=True, db_index=False)
    priority = models.PositiveSmallIntegerField(null=True)
    state = models.CharField(max_length=16, help_text="A job's, or `spent`: then only client, month and dollars say.")
    month = models.DateField(null=True, help_text="Of what was spent: its first day, UTC.")
    jobs = models.BigIntegerField()
    tokens = models.BigIntegerField()
    usd = models.DecimalField(max_digits=20, decimal_places=8, db_default=0)
    oldest_at = models.DateTimeField(null=True, help_text="Since when the oldest waits of those that became queued.")
    is_submit = models.BooleanField()

    class Meta:
        indexes = [
            models.Index(name="jobcountchange_of_client", fields=["client", "id"]),
            # What made the backlog larger: for the bound on all of it.
            models.Index(
                name="jobcountchange_waiting",
                fields=["id"],
                condition=Q(state__in=["queued", "scheduled"], jobs__gt=0),
            ),
        ]


class Spending(models.Model):
    """What the attempts of a client that ended in a month did cost. Attempts that are removed stay in it."""

    client = models.ForeignKey(Client, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    month = models.DateField(help_text="Its first day, UTC.")
    usd = models.DecimalField(max_digits=20, decimal_places=8)

    class Meta:
        constraints = [models.UniqueConstraint(name="spending_of_month", fields=["client", "month"])]

    def __str__(self) -> str:
        return f"{self.client_id}: {self.month:%Y-%m}"


class JobCountTurn(models.Model):
    """How far the changes were counted; newest first, appended as the claim's turns are. The first count makes one.

    `bound_id` is `counted_to` as it was 2 to 4 seconds ago: deleted rows behind it are never walked.
    """

    turn = models.BigIntegerField(primary_key=True)
    counted_to = models.BigIntegerField()
    counted_at = models.DateTimeField(db_default=Now())
    bound_id = models.BigIntegerField()
    next_bound_id = models.BigIntegerField()
    next_bound_at = models.DateTimeField(db_default=Now())
    swept_at = models.DateTimeField(db_default=Now(), help_text="When rows behind the bound were last looked for.")
    oldest_at = models.DateTimeField(
        null=True, help_text="No queued job that was counted has waited for longer; null: none was queued."
    )
    tier_oldest = models.JSONField(null=True, help_text="The same by tier's id; null: unknown, of an older worker's.")
