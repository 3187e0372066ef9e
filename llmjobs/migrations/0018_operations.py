"""Operations: what operators do to many jobs."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0017_dead_letters"),
    ]

    operations = []
