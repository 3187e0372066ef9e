"""Links that show a job to whoever has them, and who made a key."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q


def made_by(help_text, **more):
    return models.ForeignKey(
        db_constraint=False, help_text=help_text, null=True, on_delete=django.db.models.deletion.SET_NULL,
        related_name="+", to=settings.AUTH_USER_MODEL, **more,
    )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0023_traces"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="created_by",
            field=made_by("The user who made it, of a client's own.", db_index=False, editable=False),
        ),
        migrations.CreateModel(
            name="SharedLink",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="shared_links",
                        to="llmjobs.job",
                    ),
                ),
                ("hash", models.CharField(help_text="SHA-256 of the token, in hex.", max_length=64, unique=True)),
                ("created_by", made_by("Who made it on the web page.")),
                (
                    "api_key_id",
                    models.BigIntegerField(help_text="The key that it was made with; null: none.", null=True),
                ),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("expires_at", models.DateTimeField(db_index=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                (
                    "last_seen_at",
                    models.DateTimeField(help_text="When somebody last opened it, to the minute.", null=True),
                ),
            ],
            options={
                "ordering": ["-id"],
                "default_permissions": (),
                "constraints": [
                    models.CheckConstraint(name="sharedlink_hash_is_sha256", condition=Q(hash__regex="^[0-9a-f]{64}$"))
                ],
            },
        ),
    ]
