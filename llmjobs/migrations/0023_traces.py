"""The trace that a job belongs to."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0022_search"),
    ]

    operations = []
