"""Links that show a job to whoever has them. `sharing.py` writes them; retention and erasing take them away.

A link's token is shown once, when it is made; kept is its SHA-256, as of an API key. No key in the database refers to a
job: its check would lock the job's row.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.models.jobs import Job


class SharedLink(models.Model):
    """Valid until it expires or is revoked, by the database's clock, and for as long as its job has a request."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, db_constraint=False, related_name="shared_links")
    hash = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the token, in hex.")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, db_constraint=False, null=True, related_name="+",
        help_text="Who made it on the web page.",
    )  # fmt: skip
    api_key_id = models.BigIntegerField(null=True, help_text="The key that it was made with; null: none.")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True)
    last_seen_at = models.DateTimeField(null=True, help_text="When somebody last opened it, to the minute.")

    class Meta:
        default_permissions = ()
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(name="sharedlink_hash_is_sha256", condition=Q(hash__regex="^[0-9a-f]{64}$")),
        ]

    def __str__(self) -> str:
        return f"link {self.pk} to job {self.job_id}"
