"""All claims can be paused."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0019_incidents"),
    ]

    operations = []
