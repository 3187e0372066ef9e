"""Bulk."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0025_tasks"),
    ]

    operations = []
