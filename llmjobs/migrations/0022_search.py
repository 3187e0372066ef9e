"""Indexes for the search of jobs."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0021_roles"),
    ]

    operations = []
