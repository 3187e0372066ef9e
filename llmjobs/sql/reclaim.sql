-- Called by: queue.reclaim, a duty of every worker.
-- Parameters: lease_s; grace_s, beyond a job's own timeout_s; backoff_base_s, backoff_cap_s; limit.
-- Returns: id, client_id, seq, state of the jobs taken back.
-- Takes back what is held by a worker whose heartbeat is older than a lease, or by none, and what runs longer than its
-- timeout allows whatever its worker's heartbeat says. A lost lease is a failure: a job that kills its workers ends dead.
-- After a start of Postgres nobody reclaims for the length of a lease: an outage must not buy every running call again.
-- The charge stands: nobody knows what the lost call used. Backoff: uniform(0, min(cap, base · 2^failures)).
-- Locks: the jobs, SKIP LOCKED, in the order of their ids. Index: job_running, worker's primary key.
with candidates as materialized (
    select j.id, j.attempt, j.worker_id
    from llmjobs_job as j
    left join llmjobs_worker as w on w.id = j.worker_id
    where j.state = 'running'
        and pg_postmaster_start_time() < statement_timestamp() - make_interval(secs => %(lease_s)s)
        and (
            w.id is null
            or w.heartbeat_at < statement_timestamp() - make_interval(secs => %(lease_s)s)
            or j.started_at < statement_timestamp() - make_interval(secs => j.timeout_s + %(grace_s)s)
        )
    limit {rows}
), lost as materialized (
    -- The lease that was judged, and no other: a job that somebody else took back and claimed again meanwhile is seen
    -- here as it is now, with the worker of before beside it.
    select j.id, j.failures, j.max_attempts, j.retry_until, j.cancel_requested_at
    from candidates as c
    join llmjobs_job as j on j.id = c.id
    where j.state = 'running' and j.attempt = c.attempt and j.worker_id = c.worker_id
    order by j.id
    for no key update of j skip locked
), moved as materialized (
    update llmjobs_job as j
    set state = d.next,
        epoch = j.epoch + 1,
        failures = j.failures + 1,
        worker_id = null,
        available_at = case when d.next = 'scheduled' then d.again_at else j.available_at end,
        finished_at = case when d.next = 'scheduled' then null else statement_timestamp() end
    from lost as l
    cross join lateral (
        select statement_timestamp()
            + make_interval(secs => random() * least(%(backoff_cap_s)s, %(backoff_base_s)s * power(2, least(l.failures, 30)))) as again_at
    ) as t
    cross join lateral (
        select t.again_at,
            case
                when l.cancel_requested_at is not null then 'cancelled'
                when l.failures + 1 >= l.max_attempts or t.again_at > l.retry_until then 'dead'
                else 'scheduled'
            end as next
    ) as d
    where j.id = l.id
    returning j.*, d.next
), closed as (
    update llmjobs_attempt as a
    set ended_at = statement_timestamp(), outcome = 'lost', error_code = 'lease_lost',
        error_message = 'Its worker stopped sending heartbeats, or held it longer than its timeout.',
        cost = a.charged,
        decision = case m.next
            when 'dead' then 'Lost lease number ' || m.failures || ': no attempt is left, dead-lettered.'
            when 'cancelled' then 'Lost lease; a cancel was asked for.'
            else 'Lost lease: tried again after a backoff.'
        end
    from moved as m
    where a.job_id = m.id and a.number = m.attempt
    returning a.job_id, a.tier_id
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, running, tier_id)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, -count(*), c.tier_id
    from moved as m
    join closed as c on c.job_id = m.id
    join llmjobs_model as p on p.id = m.pool_id
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size, c.tier_id
), streamed as (
    -- What was streamed before the break stays readable.
    select m.id, coalesce(string_agg(e.data ->> 'text', '' order by e.seq), '') as output_text
    from moved as m
    left join llmjobs_jobevent as e
        on e.job_id = m.id and e.type = 'delta' and e.seq > (m.epoch - 1)::bigint << 20 and e.seq < m.epoch::bigint << 20
    group by m.id
), results as (
    insert into llmjobs_jobresult as r (job_id, output_text, error_code, error_message, error_class, error_attempt)
    select m.id, s.output_text, 'lease_lost', 'Its worker stopped sending heartbeats, or held it longer than its timeout.',
        'unknown', m.attempt
    from moved as m
    join streamed as s on s.id = m.id
    on conflict (job_id) do update
    set output = null, output_text = excluded.output_text, error_code = excluded.error_code,
        error_message = excluded.error_message, error_class = excluded.error_class, provider_status = null,
        error_attempt = excluded.error_attempt
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20,
        case when next = 'scheduled' then 'status' else 'done' end,
        jsonb_strip_nulls(jsonb_build_object(
            'status', next,
            'attempt', case when next = 'scheduled' then attempt end,
            'available_at', case when next = 'scheduled' then available_at end))
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, next as state
from moved
