-- Called by: host_calls.PendingCalls, a duty of every worker, before it calls.
-- Parameters: again_s, for how long a call that was taken is nobody else's; tries_max. Literal: {rows}, the most at once.
-- kills_max: after so many tries, the last of which took its worker with it, it is dead: each kill costs others their leases.
-- Every end of a call has other words than those that it is taken with.
-- Returns: id, tries, state of the calls taken, the oldest due first. The try is counted now, so that a handler that kills
-- its workers ends dead and does not go round for ever: who has had all tries and is still pending was one of those.
-- Locks: the rows, SKIP LOCKED: a handler that runs holds its own. Index: handlercall_due.
with due as materialized (
    select id, tries, error
    from llmjobs_handlercall
    where state = 'pending' and next_at <= statement_timestamp()
    order by next_at
    limit {rows}
    for no key update skip locked
)
update llmjobs_handlercall as c
set tries = c.tries + case when d.is_over then 0 else 1 end,
    state = case when d.is_over then 'dead' else 'pending' end,
    ended_at = case when d.is_over then statement_timestamp() end,
    error = case when d.is_over then coalesce(c.error, d.killed) else d.killed end,
    next_at = statement_timestamp() + make_interval(secs => %(again_s)s)
from (
    select t.id, k.killed,
        t.tries >= %(tries_max)s or (t.error = k.killed and t.tries >= %(kills_max)s) as is_over
    from due as t
    cross join (values ('Its worker ended while the handler ran.')) as k (killed)
) as d
where c.id = d.id
returning c.id, c.tries, c.state
