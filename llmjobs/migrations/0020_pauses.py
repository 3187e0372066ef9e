"""All claims can be paused: a row a pause, and the open one is what every claim looks at."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0019_incidents"),
    ]

    operations = [
        migrations.CreateModel(
            name="ClaimsPause",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("since", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ("by", models.CharField(max_length=255, verbose_name="paused by")),
                ("reason", models.CharField(blank=True, max_length=500)),
                ("resumed_at", models.DateTimeField(blank=True, null=True)),
                ("resumed_by", models.CharField(blank=True, max_length=255)),
            ],
            options={
                "verbose_name": "pause of all claims",
                "verbose_name_plural": "pauses of all claims",
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("resumed_at", None)),
                        fields=("resumed_at",),
                        name="claimspause_open",
                        nulls_distinct=False,
                    )
                ],
            },
        ),
    ]
