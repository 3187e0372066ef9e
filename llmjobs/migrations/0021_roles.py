"""Viewers, operators and administrators: groups."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0020_pauses"),
    ]

    operations = []
