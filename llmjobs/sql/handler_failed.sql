-- Called by: host_calls.PendingCalls, where a call's transaction did not commit: the handler broke it, or took too long.
-- Parameters: id; tries, the number of that call; wait_s, until the next one; tries_max; error, in one line.
-- Returns: nothing. A call that somebody else took since is left alone. Locks: the row. Index: its primary key.
update llmjobs_handlercall
set error = %(error)s,
    next_at = statement_timestamp() + make_interval(secs => %(wait_s)s),
    state = case when tries >= %(tries_max)s then 'dead' else 'pending' end,
    ended_at = case when tries >= %(tries_max)s then statement_timestamp() end
where id = %(id)s and state = 'pending' and tries = %(tries)s
