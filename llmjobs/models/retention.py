"""How far retention has come: one row, written by whoever prunes, one at a time."""

from django.db import models


class Retention(models.Model):
    """What finished before these moments is gone. From there on is looked, so that nobody walks what was removed."""

    id = models.SmallIntegerField(primary_key=True)
    bodies_gone_to = models.DateTimeField(null=True, help_text="Requests, outputs and events of jobs finished before.")
    jobs_gone_to = models.DateTimeField(null=True, help_text="Jobs finished before, with all that belongs to them.")

    class Meta:
        verbose_name_plural = "retention"

    def __str__(self) -> str:
        return "retention"
