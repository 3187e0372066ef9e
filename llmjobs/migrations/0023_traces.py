"""The trace that a job belongs to."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0022_search"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobrequest",
            name="traceparent",
            field=models.CharField(
                help_text="The trace that its attempts go on with, as W3C has it; null: none.",
                max_length=55,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="span_id",
            field=models.CharField(
                help_text="In its job's trace: the next attempt links to it.", max_length=16, null=True
            ),
        ),
    ]
