-- Called by: queue.report, in the tick of a worker in which it heard something.
-- Parameters: signals: a JSON array of {pool_id, client_id (whose call it was), ago_s (since it was heard), wait_s, signal}.
-- Appends them to the inbox, with times by the database's clock: the next fold applies them, for all workers at once.
-- Locks: none.
insert into llmjobs_inbox (shard_id, pool_id, client_id, signal)
select m.shard_id, d.pool_id, d.client_id,
    d.signal || jsonb_strip_nulls(jsonb_build_object('at', t.at, 'wait_until', t.at + d.wait_s))
from json_to_recordset(%(signals)s::json) as d (pool_id bigint, client_id bigint, ago_s float8, wait_s float8, signal jsonb)
cross join lateral (select extract(epoch from statement_timestamp())::float8 - d.ago_s as at) as t
join llmjobs_model as m on m.id = d.pool_id
