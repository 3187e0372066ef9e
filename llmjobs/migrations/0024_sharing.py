"""Links that show a job to whoever has them, and who made a key."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0023_traces"),
    ]

    operations = []
