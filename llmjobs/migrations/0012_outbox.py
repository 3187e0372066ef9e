"""Whoever ends a job, by whatever road: who is to be told of it stands in the outbox with the same commit."""

from django.db import migrations

JOBS_ENDED = """
create function llmjobs_jobs_ended() returns trigger language plpgsql as $$
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
create trigger llmjobs_jobs_ended after update on llmjobs_job
    referencing old table as before new table as after for each statement execute function llmjobs_jobs_ended();
"""
JOBS_ENDED_REVERSE = """
drop trigger llmjobs_jobs_ended on llmjobs_job;
drop function llmjobs_jobs_ended();
"""

STORAGE = """
alter table llmjobs_webhookdelivery set (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
alter table llmjobs_handlercall set (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
"""
STORAGE_REVERSE = """
alter table llmjobs_webhookdelivery reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
alter table llmjobs_handlercall reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0011_nothing_lost"),
    ]

    operations = [
        migrations.RunSQL(JOBS_ENDED, JOBS_ENDED_REVERSE),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
