"""Turns outlive their tier; an attempt may have no client."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0005_bounds"),
    ]

    operations = [
        migrations.AlterField(
            model_name="attempt",
            name="client",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                help_text="Null: unknown, of a job that was gone before attempts told.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="llmjobs.client",
            ),
        ),
        migrations.AlterField(
            model_name="flowturn",
            name="tier",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, to="llmjobs.tier"
            ),
        ),
        migrations.AlterField(
            model_name="inbox",
            name="tier",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                help_text="The tier that was charged.",
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                to="llmjobs.tier",
            ),
        ),
        migrations.AlterField(
            model_name="laneturn",
            name="tier",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, to="llmjobs.tier"
            ),
        ),
        migrations.AlterField(
            model_name="tierturn",
            name="tier",
            field=models.ForeignKey(
                db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, to="llmjobs.tier"
            ),
        ),
    ]
