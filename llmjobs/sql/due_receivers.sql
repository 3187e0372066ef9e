-- Called by: deliveries.Deliveries._look, after pin_reads, on every worker, twice a second, oftener while deliveries end.
-- Parameters: client_id, receiver: where the walk begins, behind these. Literals: {rows}, {pairs}: bounds.
-- Returns: client_id, receiver, is_due, nth: receivers of clients, by what is due. First those of the {rows} deliveries that
-- are due the longest and of the {rows} that are due since just now, nth null: mostly that is all there are. Then {pairs}
-- on a walk over all that have something pending: nobody is overlooked for ever behind the backlog of one that is slow.
-- Nothing at all while nothing is due.
-- Index: delivery_due, from both ends; delivery_of_receiver, a probe for each on the walk, however many wait for it.
-- Why rows are compared as a whole, and pins: it leaves the planner no other way. What the statistics say of a table of
-- which nearly all is delivered is mostly out of date.
with recursive longest as materialized (
    select client_id, receiver
    from llmjobs_webhookdelivery
    where state = 'pending' and next_at <= statement_timestamp()
    order by next_at
    limit {rows}
), latest as materialized (
    select client_id, receiver
    from llmjobs_webhookdelivery
    where state = 'pending' and next_at <= statement_timestamp() and exists (select from longest)
    order by next_at desc
    limit {rows}
), walk as (
    (
        select client_id, receiver, next_at, 1 as nth
        from llmjobs_webhookdelivery
        where state = 'pending' and (client_id, receiver) > (%(client_id)s::bigint, %(receiver)s::text)
            and exists (select from longest)
        order by client_id, receiver, next_at
        limit 1
    )
    union all
    select n.client_id, n.receiver, n.next_at, w.nth + 1
    from walk as w
    cross join lateral (
        select client_id, receiver, next_at
        from llmjobs_webhookdelivery
        where state = 'pending' and (client_id, receiver) > (w.client_id, w.receiver)
        order by client_id, receiver, next_at
        limit 1
    ) as n
    where w.nth < {pairs}
)
select client_id, receiver, true as is_due, null as nth
from (select * from longest union select * from latest) as due
union all
select client_id, receiver, next_at <= statement_timestamp(), nth
from walk
order by nth nulls first
