"""Jobs age, and flows learn what their jobs cost."""

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

BACKFILL = """
update llmjobs_attempt as a
set client_id = j.client_id,
    waited_s = greatest(
        0, extract(epoch from a.claimed_at - greatest(j.created_at, least(j.available_at, a.claimed_at))))
from llmjobs_job as j
where j.id = a.job_id;
update llmjobs_attempt set waited_s = 0 where waited_s is null;
"""

# Lanes that wait now begin to age now; the next fold sets when, and copies weights and limits.
AGE = """
update llmjobs_laneturn as t
set priority = l.priority, size = l.size, head_at = case when t.has_heads then now() end
from llmjobs_lane as l
where l.id = t.lane_id;
insert into llmjobs_inbox (shard_id, pool_id, client_id)
select m.shard_id, f.pool_id, f.client_id
from llmjobs_flow as f
join llmjobs_model as m on m.id = f.pool_id;
"""

# A tier's aging and a client's weight reach their flows as limits of running jobs do.
EDITS = """
create or replace function llmjobs_client_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_flow as f on f.client_id = n.id
    join llmjobs_model as m on m.id = f.pool_id
    where (n.is_paused, n.tier_id, n.max_running, n.weight)
        is distinct from (o.is_paused, o.tier_id, o.max_running, o.weight);
    return null;
end
$$;
create or replace function llmjobs_tier_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_client as c on c.tier_id = n.id
    join llmjobs_flow as f on f.client_id = c.id
    join llmjobs_model as m on m.id = f.pool_id
    where n.aging_s <> o.aging_s or (c.max_running is null and n.max_running is distinct from o.max_running);
    return null;
end
$$;
"""

EDITS_REVERSE = """
create or replace function llmjobs_client_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_flow as f on f.client_id = n.id
    join llmjobs_model as m on m.id = f.pool_id
    where (n.is_paused, n.tier_id, n.max_running) is distinct from (o.is_paused, o.tier_id, o.max_running);
    return null;
end
$$;
create or replace function llmjobs_tier_edited() returns trigger language plpgsql as $$
begin
    insert into llmjobs_inbox (shard_id, pool_id, client_id)
    select m.shard_id, f.pool_id, f.client_id
    from edited as n
    join original as o on o.id = n.id
    join llmjobs_client as c on c.tier_id = n.id and c.max_running is null
    join llmjobs_flow as f on f.client_id = c.id
    join llmjobs_model as m on m.id = f.pool_id
    where n.max_running is distinct from o.max_running;
    return null;
end
$$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0002_hot_tables"),
    ]

    operations = [
        migrations.AddField(
            model_name="attempt",
            name="client",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                to="llmjobs.client",
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="waited_s",
            field=models.FloatField(help_text="From when the job might have started until it was claimed.", null=True),
        ),
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="attempt",
            name="waited_s",
            field=models.FloatField(help_text="From when the job might have started until it was claimed."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="cost_ratio",
            field=models.FloatField(db_default=1, help_text="Mean of actual by estimated cost, of completed jobs."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="learned",
            field=models.FloatField(
                db_default=4,
                help_text="The weight of what is known, in jobs: the first guess counts as 4, and 64 is the most.",
            ),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="output_tokens",
            field=models.FloatField(help_text="Mean of completed jobs.", null=True),
        ),
        migrations.AddField(
            model_name="inbox",
            name="head_at",
            field=models.DateTimeField(help_text="The earliest time since when one of these waits.", null=True),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned",
            field=models.IntegerField(db_default=0, help_text="Their number."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_cost",
            field=models.FloatField(db_default=0, help_text="Their actual cost, together."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_estimate",
            field=models.FloatField(db_default=0, help_text="Their jobs' estimated cost, together."),
        ),
        migrations.AddField(
            model_name="inbox",
            name="learned_output",
            field=models.FloatField(db_default=0, help_text="Their output tokens, together."),
        ),
        migrations.AddField(
            model_name="laneturn",
            name="ages_at",
            field=models.DateTimeField(help_text="When its level rises next; null: never.", null=True),
        ),
        migrations.AddField(
            model_name="laneturn",
            name="head_at",
            field=models.DateTimeField(help_text="Since when its head waits, or the lane was served.", null=True),
        ),
        migrations.AddField(
            model_name="tierturn",
            name="floor_flows",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.BigIntegerField(),
                db_default=[],
                default=list,
                help_text="Of lanes at the very floor, the least flow: many wake at one virtual time.",
                size=10,
            ),
        ),
        migrations.AddField(
            model_name="tierturn",
            name="mean_cost",
            field=models.FloatField(db_default=0, help_text="Of what was charged lately, in weighted tokens."),
        ),
        migrations.AddField(
            model_name="shardturn",
            name="sweep_from",
            field=models.BigIntegerField(db_default=0, help_text="No row of the inbox has a smaller id."),
        ),
        migrations.AddField(model_name="shardturn", name="bound_xid", field=models.BigIntegerField(db_default=0)),
        migrations.AddField(model_name="shardturn", name="next_bound_xid", field=models.BigIntegerField(db_default=0)),
        migrations.AddField(
            model_name="shardturn",
            name="aged_to",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="Lanes due to age until then were looked at.",
            ),
        ),
        migrations.AddField(
            model_name="tier",
            name="aging_s",
            field=models.FloatField(
                db_default=300,
                default=300,
                help_text="Each so many seconds of waiting raise a job by a priority, so that none starves; 0: never.",
                validators=[django.core.validators.MinValueValidator(0)],
                verbose_name="aging, s",
            ),
        ),
        migrations.AlterField(
            model_name="laneturn",
            name="level",
            field=models.SmallIntegerField(help_text="Priority and size, the priority raised by the age of the head."),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["client", "-id"], name="attempt_of_client"),
        ),
        migrations.AddIndex(
            model_name="laneturn",
            index=models.Index(
                condition=models.Q(("ages_at__isnull", False), ("is_ready", True)),
                fields=["ages_at"],
                name="laneturn_aging",
            ),
        ),
        migrations.AddConstraint(
            model_name="tier",
            constraint=models.CheckConstraint(condition=models.Q(("aging_s__gte", 0)), name="tier_aging_not_negative"),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="weight",
            field=models.FloatField(db_default=1, help_text="The client's, as last folded: so is the limit."),
        ),
        migrations.AddField(
            model_name="flowturn",
            name="max_running",
            field=models.IntegerField(help_text="The client's, or its tier's.", null=True),
        ),
        migrations.AddField(
            model_name="laneturn", name="priority", field=models.PositiveSmallIntegerField(db_default=5)
        ),
        migrations.AddField(model_name="laneturn", name="size", field=models.PositiveSmallIntegerField(db_default=0)),
        migrations.RemoveIndex(model_name="job", name="job_ready"),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "queued")),
                fields=["pool", "client", "priority", "size", "lane_order"],
                include=("id", "est_cost"),
                name="job_ready",
            ),
        ),
        migrations.RemoveIndex(model_name="laneturn", name="laneturn_ready"),
        migrations.AddIndex(
            model_name="laneturn",
            index=models.Index(
                condition=models.Q(("is_ready", True)),
                fields=["pool", "tier", "level", "vt", "flow", "lane"],
                name="laneturn_ready",
            ),
        ),
        migrations.RunSQL(AGE, migrations.RunSQL.noop),
        migrations.RunSQL(EDITS, EDITS_REVERSE),
    ]
