-- Called by: watch.
-- Parameters: tries: what was tried so often in vain counts.
-- Literal: {rows}, the most that are looked at of each kind: the newest that were given up, the next that are due.
-- Returns: one row: failed (given up within an hour), failing, receivers (how many of both), and of the worst of these its
-- number and its host.
-- Index: delivery_failed, delivery_due.
with looked as materialized (
    (
        select receiver, true as is_failed
        from (
            select receiver, ended_at
            from llmjobs_webhookdelivery
            where state = 'failed'
            order by id desc
            limit {rows}
        ) as f
        where ended_at > statement_timestamp() - interval '1 h'
    )
    union all
    (
        select receiver, false
        from (
            select receiver, tries
            from llmjobs_webhookdelivery
            where state = 'pending'
            order by next_at
            limit {rows}
        ) as p
        where tries >= %(tries)s
    )
)
select count(*) filter (where is_failed)::int as failed, count(*) filter (where not is_failed)::int as failing,
    count(distinct l.receiver)::int as receivers, w.deliveries, w.receiver
from looked as l
left join (
    select receiver, count(*)::int as deliveries
    from looked
    group by receiver
    order by deliveries desc, receiver
    limit 1
) as w on true
group by w.deliveries, w.receiver
