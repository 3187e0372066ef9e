"""What waits at a fallback, by the model that it was asked of."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("llmjobs", "0008_budgets")]

    operations = [
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                name="job_away",
                fields=["pool", "home"],
                condition=models.Q(("home__isnull", False), ("state", "queued")),
            ),
        ),
    ]
