"""What happened, counted by the minute: tallies."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0015_permissions"),
    ]

    operations = []
