"""What Django's models can't say: the order of lanes, how the hot tables are stored, edits told to the claim, seeds."""

from django.db import migrations

SEQUENCE = """
-- The order of a lane is a number of its own, not the id: a retry keeps its place, a requeue goes to the end.
create sequence llmjobs_lane_order as bigint cache 1;
alter table llmjobs_job alter column lane_order set default nextval('llmjobs_lane_order');
"""

# A claim rewrites few columns of many jobs; turns and inbox are insert and delete. Vacuum follows by count, not by
# share of the table, and without pauses.
STORAGE = """
alter table llmjobs_job set (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
alter table llmjobs_attempt set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
alter table llmjobs_worker set (fillfactor = 50);
alter table llmjobs_shardturn set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_tierturn set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_flowturn set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_laneturn set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
alter table llmjobs_inbox set (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
"""

STORAGE_REVERSE = ";".join(
    f"alter table llmjobs_{table} reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor, "
    "autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay)"
    for table in ("job", "attempt", "worker", "shardturn", "tierturn", "flowturn", "laneturn", "inbox")
)

# Pauses, limits and tiers reach the flows by whatever road they are edited: a form, .update(), SQL.
EDITS = """
create function llmjobs_client_edited() returns trigger language plpgsql as $$
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
create trigger llmjobs_client_edited after update on llmjobs_client
referencing new table as edited old table as original
for each statement execute function llmjobs_client_edited();

create function llmjobs_tier_edited() returns trigger language plpgsql as $$
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
create trigger llmjobs_tier_edited after update on llmjobs_tier
referencing new table as edited old table as original
for each statement execute function llmjobs_tier_edited();
"""

EDITS_REVERSE = """
drop trigger llmjobs_client_edited on llmjobs_client;
drop function llmjobs_client_edited();
drop trigger llmjobs_tier_edited on llmjobs_tier;
drop function llmjobs_tier_edited();
"""

SEEDS = """
insert into llmjobs_turnstile (id) values (1);
insert into llmjobs_shardturn (shard_id, turn, folded_to, bound_id, next_bound_id) values (1, 0, 0, 0, 0);
insert into llmjobs_tier (name, weight, max_priority) values ('free', 1, 5), ('pro', 4, 1), ('enterprise', 16, 0);
"""

SEEDS_REVERSE = """
delete from llmjobs_tier where name in ('free', 'pro', 'enterprise');
delete from llmjobs_shardturn;
delete from llmjobs_turnstile;
"""


class Migration(migrations.Migration):
    dependencies = [("llmjobs", "0001_initial")]

    operations = [
        migrations.RunSQL(
            SEQUENCE,
            "alter table llmjobs_job alter column lane_order drop default; drop sequence llmjobs_lane_order",
        ),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
        migrations.RunSQL(EDITS, EDITS_REVERSE),
        migrations.RunSQL(SEEDS, SEEDS_REVERSE),
    ]
