-- Called by: queue.expire, a duty of every worker.
-- Literal: {rows}, the most at once.
-- Returns: id, client_id, seq, state of the jobs whose deadline for a start has passed.
-- Locks: the jobs, SKIP LOCKED. Index: job_expiring.
with due as materialized (
    select id, state as was
    from llmjobs_job
    where state in ('queued', 'scheduled') and attempt = 0 and expires_at is not null and expires_at <= statement_timestamp()
    order by expires_at
    limit {rows}
    for no key update skip locked
), moved as materialized (
    update llmjobs_job as j
    set state = 'expired', epoch = j.epoch + 1, finished_at = statement_timestamp()
    from due as d
    where j.id = d.id
    returning j.*, d.was
), inbox as (
    insert into llmjobs_inbox (shard_id, pool_id, client_id, priority, size, queued)
    select p.shard_id, m.pool_id, m.client_id, m.priority, m.size, -count(*)
    from moved as m
    join llmjobs_model as p on p.id = m.pool_id
    where m.was = 'queued'
    group by p.shard_id, m.pool_id, m.client_id, m.priority, m.size
), events as (
    insert into llmjobs_jobevent (job_id, seq, type, data)
    select id, epoch::bigint << 20, 'done', '{"status": "expired"}'
    from moved
)
select id, client_id, epoch::bigint << 20 as seq, state
from moved
