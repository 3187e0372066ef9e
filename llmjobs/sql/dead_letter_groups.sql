-- Called by: admin.dead_letter_groups.
-- Parameters: error, class, state (text), pool, client (id), since, until (times): each null for any; by_client: whether a
-- group is of one client.
-- Literal: {groups}, the most that are returned.
-- Returns: error_code, error_class, state, pool_id, client_id (null: of several), jobs, clients, first_at, last_at, newest
-- (the highest id of a job), of the largest groups; and in each row groups and total, of all that match, and read_at.
-- Why in two steps: clients are counted by what was counted of each. Both in the order of the index, with hashes and scans
-- switched off in its transaction: 100,000 letters of 10,000 clients cost a third of what hashes of their texts do.
-- Index: deadletter_groups alone, without a look at a row.
with of_clients as (
    select error_code, error_class, state, pool_id, client_id, count(*) as jobs, min(since) as first_at, max(since) as last_at,
        max(job_id) as newest
    from llmjobs_deadletter
    where (%(error)s::text is null or error_code = %(error)s::text)
        and (%(class)s::text is null or error_class = %(class)s::text)
        and (%(state)s::text is null or state = %(state)s::text)
        and (%(pool)s::bigint is null or pool_id = %(pool)s::bigint)
        and (%(client)s::bigint is null or client_id = %(client)s::bigint)
        and (%(since)s::timestamptz is null or since >= %(since)s::timestamptz)
        and (%(until)s::timestamptz is null or since <= %(until)s::timestamptz)
    group by error_code, error_class, pool_id, state, client_id
)
select error_code, error_class, state, pool_id, case when count(*) = 1 then min(client_id) end as client_id,
    sum(jobs)::bigint as jobs, count(*) as clients, min(first_at) as first_at, max(last_at) as last_at, max(newest) as newest,
    count(*) over () as groups, (sum(sum(jobs)) over ())::bigint as total, statement_timestamp() as read_at
from of_clients
group by error_code, error_class, pool_id, state, case when %(by_client)s then client_id end
order by sum(jobs) desc, max(last_at) desc
limit {groups}
