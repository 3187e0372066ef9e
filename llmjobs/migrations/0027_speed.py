"""Submitting faster."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0026_bulk"),
    ]

    operations = []
