"""Dead letters: what waits for an operator, by error.

And an end may follow an end: an operator cancels what is dead, and whoever is told of ends is told of that one too.
"""

import django.db.models.deletion
from django.db import migrations, models

# As 0012 has it, and with dead letters. Most statements end no job, and leave at once.
JOBS_ENDED = """
create or replace function llmjobs_jobs_ended() returns trigger language plpgsql as $$
begin
    if not exists (select from after where finished_at is not null)
        and not exists (select from before where finished_at is not null)
    then
        return null;
    end if;
    if exists (select from after where (has_webhook or has_handler) and finished_at is not null) then
        insert into llmjobs_webhookdelivery (job_id, client_id, epoch, type, url)
        select a.id, a.client_id, a.epoch, 'job.' || a.state, r.webhook_url
        from after as a
        join before as b on b.id = a.id
        cross join lateral (select webhook_url from llmjobs_jobrequest where job_id = a.id limit 1) as r
        where a.has_webhook and a.finished_at is not null and (b.finished_at is null or b.epoch <> a.epoch)
            and r.webhook_url is not null
        order by a.id;
        insert into llmjobs_handlercall (job_id, epoch, handler)
        select a.id, a.epoch, r.on_settled
        from after as a
        join before as b on b.id = a.id
        cross join lateral (select on_settled from llmjobs_jobrequest where job_id = a.id limit 1) as r
        where a.has_handler and a.finished_at is not null and (b.finished_at is null or b.epoch <> a.epoch)
            and r.on_settled is not null
        order by a.id;
    end if;
    if exists (select from before where state in ('dead', 'failed')) then
        delete from llmjobs_deadletter
        where job_id = any (array(
            select b.id
            from before as b
            join after as a on a.id = b.id
            where b.state in ('dead', 'failed') and a.state not in ('dead', 'failed')
        ));
    end if;
    if exists (select from after where state in ('dead', 'failed')) then
        insert into llmjobs_deadletter (job_id, state, error_code, error_class, pool_id, client_id, tier_id, since)
        select a.id, a.state, coalesce(r.error_code, ''), coalesce(r.error_class, ''), a.pool_id, a.client_id, a.tier_id,
            a.finished_at
        from after as a
        join before as b on b.id = a.id
        left join lateral (select error_code, error_class from llmjobs_jobresult where job_id = a.id limit 1) as r on true
        where a.state in ('dead', 'failed') and b.state <> a.state
        order by a.id
        on conflict (job_id) do update
        set state = excluded.state, error_code = excluded.error_code, error_class = excluded.error_class,
            pool_id = excluded.pool_id, client_id = excluded.client_id, tier_id = excluded.tier_id, since = excluded.since;
    end if;
    return null;
end
$$;
"""
# 0012's own.
JOBS_ENDED_REVERSE = """
create or replace function llmjobs_jobs_ended() returns trigger language plpgsql as $$
begin
    if not exists (select from after where (has_webhook or has_handler) and finished_at is not null) then
        return null;
    end if;
    insert into llmjobs_webhookdelivery (job_id, client_id, epoch, type, url)
    select a.id, a.client_id, a.epoch, 'job.' || a.state, r.webhook_url
    from after as a
    join before as b on b.id = a.id
    cross join lateral (select webhook_url from llmjobs_jobrequest where job_id = a.id limit 1) as r
    where a.has_webhook and a.finished_at is not null and b.finished_at is null and r.webhook_url is not null
    order by a.id;
    insert into llmjobs_handlercall (job_id, epoch, handler)
    select a.id, a.epoch, r.on_settled
    from after as a
    join before as b on b.id = a.id
    cross join lateral (select on_settled from llmjobs_jobrequest where job_id = a.id limit 1) as r
    where a.has_handler and a.finished_at is not null and b.finished_at is null and r.on_settled is not null
    order by a.id;
    return null;
end
$$;
"""

# Whoever removes a job, retention or SQL. Making the trigger keeps writers out until this has committed, so that the
# rows below miss none.
JOBS_GONE = """
create function llmjobs_jobs_gone() returns trigger language plpgsql as $$
begin
    if exists (select from gone where state in ('dead', 'failed')) then
        delete from llmjobs_deadletter
        where job_id = any (array(select id from gone where state in ('dead', 'failed')));
    end if;
    return null;
end
$$;
create trigger llmjobs_jobs_gone after delete on llmjobs_job
    referencing old table as gone for each statement execute function llmjobs_jobs_gone();
"""
JOBS_GONE_REVERSE = """
drop trigger llmjobs_jobs_gone on llmjobs_job;
drop function llmjobs_jobs_gone();
"""

BACKFILL = """
insert into llmjobs_deadletter (job_id, state, error_code, error_class, pool_id, client_id, tier_id, since)
select j.id, j.state, coalesce(r.error_code, ''), coalesce(r.error_class, ''), j.pool_id, j.client_id, j.tier_id, j.finished_at
from llmjobs_job as j
left join llmjobs_jobresult as r on r.job_id = j.id
where j.state in ('dead', 'failed')
order by j.id;
"""

# Rows come and go; groups are counted from the index alone, where the table is known to be visible to all.
STORAGE = """
alter table llmjobs_deadletter set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_insert_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 1000);
"""
STORAGE_REVERSE = """
alter table llmjobs_deadletter reset (
    autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_insert_scale_factor,
    autovacuum_vacuum_insert_threshold, autovacuum_analyze_scale_factor, autovacuum_analyze_threshold);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0016_tallies"),
    ]

    operations = [
        migrations.CreateModel(
            name="DeadLetter",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="dead_letter",
                        serialize=False,
                        to="llmjobs.job",
                    ),
                ),
                ("state", models.CharField(choices=[("dead", "dead"), ("failed", "failed")], max_length=16)),
                ("error_code", models.CharField(db_default="", max_length=128)),
                ("error_class", models.CharField(db_default="", max_length=16)),
                ("since", models.DateTimeField(help_text="When the job ended so.")),
                (
                    "client",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="llmjobs.client",
                    ),
                ),
                (
                    "pool",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="llmjobs.model",
                        verbose_name="model",
                    ),
                ),
                (
                    "tier",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="llmjobs.tier",
                    ),
                ),
            ],
            options={
                "ordering": ["-job"],
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(
                        fields=["error_code", "error_class", "pool", "state", "client", "job"],
                        include=("since", "tier"),
                        name="deadletter_groups",
                    ),
                    models.Index(fields=["since"], name="deadletter_since"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["dead", "failed"])), name="deadletter_state_known"
                    )
                ],
            },
        ),
        migrations.RunSQL(JOBS_ENDED, JOBS_ENDED_REVERSE),
        migrations.RunSQL(JOBS_GONE, JOBS_GONE_REVERSE),
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
