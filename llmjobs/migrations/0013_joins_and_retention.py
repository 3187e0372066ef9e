"""Who joins an equal job, and who removes old ones, reads a bounded range however many there are."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0012_outbox"),
    ]

    operations = [
        migrations.AddField(
            model_name="retention",
            name="looked_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="When somebody last looked for what is past its age.",
            ),
        ),
        migrations.AddField(
            model_name="jobrequest",
            name="key_fingerprint",
            field=models.CharField(
                help_text="Of the submission that brought the key, where it joined this job.", max_length=64, null=True
            ),
        ),
        migrations.RemoveIndex(model_name="job", name="job_expiring"),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(
                    ("attempt", 0), ("expires_at__isnull", False), ("state__in", ["queued", "scheduled"])
                ),
                fields=["expires_at"],
                name="job_expiring",
            ),
        ),
        migrations.RemoveIndex(model_name="job", name="job_finished"),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False)), fields=["finished_at", "id"], name="job_finished"
            ),
        ),
        migrations.RemoveIndex(model_name="jobrequest", name="request_prompt"),
        migrations.AddIndex(
            model_name="jobrequest",
            index=models.Index(fields=["client", "prompt_hash", "-job"], name="request_prompt"),
        ),
    ]
