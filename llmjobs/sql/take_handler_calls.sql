-- Called by: host_calls.PendingCalls, a duty of every worker, before it calls.
-- Parameters: again_s, for how long a call that was taken is nobody else's; tries_max. Literal: {rows}, the most at once.
-- Returns: id, tries, state of the calls taken, the oldest due first. The try is counted now, so that a handler that kills
-- its workers ends dead and does not go round for ever: who has had all tries and is still pending was one of those.
-- Locks: the rows, SKIP LOCKED: a handler that runs holds its own. Index: handlercall_due.
with due as materialized (
    select id
    from llmjobs_handlercall
    where state = 'pending' and next_at <= statement_timestamp()
    order by next_at
    limit {rows}
    for no key update skip locked
)
update llmjobs_handlercall as c
set tries = least(c.tries + 1, greatest(c.tries, %(tries_max)s)),
    state = case when c.tries >= %(tries_max)s then 'dead' else 'pending' end,
    ended_at = case when c.tries >= %(tries_max)s then statement_timestamp() end,
    error = case when c.tries >= %(tries_max)s then coalesce(c.error, 'Its worker ended while the handler ran.') else c.error end,
    next_at = statement_timestamp() + make_interval(secs => %(again_s)s)
from due as d
where c.id = d.id
returning c.id, c.tries, c.state
