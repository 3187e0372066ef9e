"""How far retention has come: one row, written by whoever prunes, one at a time."""

from django.db import models
from django.db.models.functions import Now


class Retention(models.Model):
    """What finished before these moments is gone. From there on is looked, so that nobody walks what was removed."""

    id = models.SmallIntegerField(primary_key=True)
    bodies_gone_to = models.DateTimeField(null=True, help_text="Requests, outputs and events of jobs finished before.")
    jobs_gone_to = models.DateTimeField(null=True, help_text="Jobs finished before, with all that belongs to them.")
    looked_at = models.DateTimeField(db_default=Now(), help_text="When somebody last looked for what is past its age.")

    class Meta:
        verbose_name_plural = "retention"

    def __str__(self) -> str:
        return "retention"
