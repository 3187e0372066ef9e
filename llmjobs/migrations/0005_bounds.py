"""Weights and aging have an upper bound: what is beyond it stops arithmetic, and with it every claim."""

import django.core.validators
from django.conf import settings
from django.db import migrations, models

WITHIN = """
update llmjobs_tier set weight = least(weight, 1000000), aging_s = least(aging_s, 2592000);
update llmjobs_client set weight = least(weight, 1000000);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0004_counts"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(WITHIN, migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name="client",
            name="client_weight_positive",
        ),
        migrations.RemoveConstraint(
            model_name="tier",
            name="tier_weight_positive",
        ),
        migrations.RemoveConstraint(
            model_name="tier",
            name="tier_aging_not_negative",
        ),
        migrations.AlterField(
            model_name="client",
            name="weight",
            field=models.FloatField(
                db_default=1,
                default=1,
                validators=[
                    django.core.validators.MinValueValidator(0.001),
                    django.core.validators.MaxValueValidator(1000000),
                ],
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="aging_s",
            field=models.FloatField(
                db_default=300,
                default=300,
                help_text="A client's jobs of a priority rise by one for each so many seconds in which none started; 0: never.",
                validators=[
                    django.core.validators.MinValueValidator(0),
                    django.core.validators.MaxValueValidator(2592000),
                ],
                verbose_name="aging, s",
            ),
        ),
        migrations.AlterField(
            model_name="tier",
            name="weight",
            field=models.FloatField(
                db_default=1,
                default=1,
                help_text="Share of a pool, beside other tiers.",
                validators=[
                    django.core.validators.MinValueValidator(0.001),
                    django.core.validators.MaxValueValidator(1000000),
                ],
            ),
        ),
        migrations.AddConstraint(
            model_name="client",
            constraint=models.CheckConstraint(
                condition=models.Q(("weight__gte", 0.001), ("weight__lte", 1000000)), name="client_weight_within_bounds"
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(
                condition=models.Q(("weight__gte", 0.001), ("weight__lte", 1000000)), name="tier_weight_within_bounds"
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(
                condition=models.Q(("aging_s__gte", 0), ("aging_s__lte", 2592000)), name="tier_aging_within_bounds"
            ),
        ),
    ]
