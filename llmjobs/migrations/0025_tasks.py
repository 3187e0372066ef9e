"""What a job was enqueued as by the host's TASKS."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0024_sharing"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrequest",
            name="task",
            field=models.TextField(
                help_text="JSON: the task of the host's TASKS that made it, its arguments included; null: none.",
                null=True,
            ),
        ),
    ]
