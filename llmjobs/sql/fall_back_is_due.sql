-- Called by: fallback.fall_back, first in its transaction.
-- Parameters: shard.
-- Returns: a row a pool whose jobs its fallback may take now: pool_id; fallback_id, the first that is open of its
-- fallbacks, which follow one another; is_probing: the pool is to be tried with a call, so a job has to stay for it. No
-- row while another worker is at it.
-- A pool is blocked by a breaker of its own or of its account, or by a rate limit for more than 10 s: less is waited for.
-- What an operator has paused neither gives nor takes: a pause is a wish that jobs wait.
-- Locks: an advisory lock until the end of the transaction, tried and not waited for.
-- Index: that of the key `fallback`; few models have one. bucketturn's primary key, newest first.
with recursive named as materialized (
    select id from llmjobs_model where fallback_id is not null
    union
    select fallback_id from llmjobs_model where fallback_id is not null
), pools as materialized (
    select m.id, m.fallback_id, m.is_paused or p.is_paused as is_paused,
        coalesce(b.is_blocked, false) as is_blocked,
        coalesce(b.is_blocked_long, false) as is_blocked_long,
        coalesce(b.is_probing, false) as is_probing
    from named as n
    cross join lateral (select * from llmjobs_model where id = n.id and shard_id = %(shard)s limit 1) as m
    cross join lateral (select is_paused from llmjobs_provider where id = m.provider_id limit 1) as p
    cross join lateral (
        select
            bool_or(t.blocked_by <> 'rate_limit' or t.blocked_until > c.now) as is_blocked,
            bool_or(t.blocked_by <> 'rate_limit' or t.blocked_until > c.now + 10) as is_blocked_long,
            bool_and(coalesce(t.blocked_until <= c.now, true)) as is_probing
        from (values (0, m.id), (1, m.provider_id)) as k (kind, of_id)
        cross join lateral (
            select blocked_by, blocked_until from llmjobs_bucketturn where kind = k.kind and of_id = k.of_id order by turn desc limit 1
        ) as t
        cross join (select extract(epoch from statement_timestamp())::float8 as now) as c
    ) as b
), chain as (
    select id as pool_id, fallback_id as at_id, is_probing, 1 as step
    from pools
    where is_blocked_long and not is_paused and fallback_id is not null
    union all
    select c.pool_id, p.fallback_id, c.is_probing, c.step + 1
    from chain as c
    join pools as p on p.id = c.at_id
    where (p.is_blocked or p.is_paused) and p.fallback_id is not null and c.step < 10 -- past Django there may be circles
), due as materialized (
    select c.pool_id, c.at_id as fallback_id, c.is_probing
    from chain as c
    join pools as p on p.id = c.at_id
    where not p.is_blocked and not p.is_paused
), mine as materialized (
    select pg_try_advisory_xact_lock(hashtext('llmjobs.fall_back'), %(shard)s) as is_mine
    from due
    limit 1
)
select pool_id, fallback_id, is_probing
from due
where (select is_mine from mine)
order by pool_id
