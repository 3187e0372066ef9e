"""Incidents of every kind."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0018_operations"),
    ]

    operations = []
