"""Dead letters: what waits for an operator, ready to be counted by error, model and client.

A trigger on Job keeps the table, by whatever road a job changes; `steering.py` takes a row out when an operator
discards it, and puts it back. Invariant: a row for each dead or failed job that nobody discarded, and no other.
"""

from django.db import models

from llmjobs.models.jobs import Job
from llmjobs.models.pools import Model
from llmjobs.models.tenants import Client, Tier

STATES = [("dead", "dead"), ("failed", "failed")]


class DeadLetter(models.Model):
    """Of the job's end. `error_code` and `error_class` are empty where nobody gave one."""

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="dead_letter"
    )
    state = models.CharField(max_length=16, choices=STATES)
    error_code = models.CharField(max_length=128, db_default="")
    error_class = models.CharField(max_length=16, db_default="")
    pool = models.ForeignKey(
        Model, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+", verbose_name="model"
    )
    client = models.ForeignKey(Client, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+")
    tier = models.ForeignKey(Tier, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    since = models.DateTimeField(help_text="When the job ended so.")

    class Meta:
        default_permissions = ("view",)
        ordering = ["-job"]
        constraints = [
            models.CheckConstraint(name="deadletter_state_known", condition=models.Q(state__in=["dead", "failed"]))
        ]
        indexes = [
            # All that groups are made of, so that counting them reads no row; and the jobs of one group are a range.
            models.Index(
                name="deadletter_groups",
                fields=["error_code", "error_class", "pool", "state", "client", "job"],
                include=["since", "tier"],
            ),
            # What came lately.
            models.Index(name="deadletter_since", fields=["since"]),
        ]

    def __str__(self) -> str:
        return f"job {self.job_id}"
