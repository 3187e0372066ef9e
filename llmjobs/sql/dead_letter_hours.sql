-- Called by: admin.dead_letter_groups, for the groups of a page.
-- Parameters: errors, classes, states, pools, clients: arrays, an entry a group (client null: of any); by_client: whether these
-- are of one client each; error, class, state, pool, client, since, until: of the page's filter, null for any.
-- Returns: nth (the group, from 1), hours_ago (0 to 23), jobs.
-- Why so: counted first, by a hash of few groups, and joined then.
-- Index: deadletter_since, the last day, where that is few.
with counted as materialized (
    select error_code, error_class, state, pool_id, case when %(by_client)s then client_id end as client_id,
        floor(date_part('epoch', statement_timestamp() - since) / 3600)::int as hours_ago, count(*) as jobs
    from llmjobs_deadletter
    where since > statement_timestamp() - interval '24 h'
        and since <= statement_timestamp()
        and (%(error)s::text is null or error_code = %(error)s::text)
        and (%(class)s::text is null or error_class = %(class)s::text)
        and (%(state)s::text is null or state = %(state)s::text)
        and (%(pool)s::bigint is null or pool_id = %(pool)s::bigint)
        and (not %(by_client)s or client_id = any (%(clients)s::bigint[]))
        and (%(client)s::bigint is null or client_id = %(client)s::bigint)
        and (%(since)s::timestamptz is null or since >= %(since)s::timestamptz)
        and (%(until)s::timestamptz is null or since <= %(until)s::timestamptz)
    group by 1, 2, 3, 4, 5, 6
)
select g.nth, least(c.hours_ago, 23) as hours_ago, sum(c.jobs)::bigint as jobs
from unnest(%(errors)s::text[], %(classes)s::text[], %(states)s::text[], %(pools)s::bigint[], %(clients)s::bigint[])
    with ordinality as g (error_code, error_class, state, pool_id, client_id, nth)
join counted as c on c.error_code = g.error_code and c.error_class = g.error_class and c.state = g.state
    and c.pool_id = g.pool_id and (not %(by_client)s or c.client_id = g.client_id)
group by 1, 2
