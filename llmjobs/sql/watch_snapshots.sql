-- Called by: watch.
-- Parameters: for_s. Literal: {rows}, the most that are named.
-- Returns: what (session, standby, prepared transaction, replication slot), who, user_name, state, open_s (null: this role
-- may not see it), pid.
-- What keeps dead rows of this database from being removed, by a transaction that began so long ago. Of sessions of other
-- roles a plain one may not see when they began (pg_read_all_stats may): these are told by how far transactions had come
-- then (Watch.past_xid), where no session that can be seen explains them. VACUUM itself holds up nobody.
-- Why transaction numbers: every young snapshot is as old as the oldest transaction that writes, so of a session with a
-- known start that start decides.
with past as materialized (
    select case when past_xid > 0 then pg_snapshot_xmax(pg_current_snapshot())::text::bigint - past_xid end as age
    from llmjobs_watch
    where id = 1
), session as materialized (
    select s.pid, s.usename, s.application_name, s.state, s.xact_start, s.datname is null as is_standby,
        greatest(age(s.backend_xmin), age(s.backend_xid)) as age
    from pg_stat_activity as s
    where (s.backend_xmin is not null or s.backend_xid is not null)
        and (s.datname = current_database() or s.datname is null)
        and s.pid <> pg_backend_pid()
        and not exists (select from pg_stat_progress_vacuum as v where v.pid = s.pid)
), found as (
    select 'session' as what, coalesce(nullif(application_name, ''), 'unnamed') as who, usename::text as user_name, state,
        extract(epoch from statement_timestamp() - xact_start)::float8 as open_s, pid, age
    from session
    where not is_standby and xact_start < statement_timestamp() - make_interval(secs => %(for_s)s)
    union all
    select case when is_standby then 'standby' else 'session' end, coalesce(nullif(application_name, ''), 'unnamed'),
        usename::text, null, null, pid, session.age
    from session
    join past on session.age > past.age and past.age > 0
    where (is_standby or xact_start is null)
        and not exists (
            select
            from session as o
            where not o.is_standby and o.age >= session.age
                and o.xact_start < statement_timestamp() - make_interval(secs => %(for_s)s)
        )
    union all
    select 'prepared transaction', gid, owner::text, null, extract(epoch from statement_timestamp() - prepared)::float8, null,
        age(transaction)
    from pg_prepared_xacts
    where database = current_database() and prepared < statement_timestamp() - make_interval(secs => %(for_s)s)
    union all
    select 'replication slot', slot_name, null, case when active then 'active' else 'inactive' end, null, active_pid, age(xmin)
    from pg_replication_slots
    join past on age(xmin) > past.age and past.age > 0
)
select what, who, user_name, state, open_s, pid
from found
order by open_s desc nulls last, age desc, pid
limit {rows}
