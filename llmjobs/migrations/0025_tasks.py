"""What a job was enqueued as by the host's TASKS."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0024_sharing"),
    ]

    operations = []
