"""Dead letters: what waits for an operator, by error."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0016_tallies"),
    ]

    operations = []
