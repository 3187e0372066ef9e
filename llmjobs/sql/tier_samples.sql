-- Called by: tallies.moments and tallies.summary.
-- Parameters: period_s: of one moment, 60 or 600; points: how many moments, the last one not over yet.
-- Returns: at (a moment's begin), tier, queued, oldest_s of the last sample of each tier and moment in which one was taken;
-- first, of each tier, that of the last one before, which holds until then.
-- Index: the primary key of llmjobs_tiersample, a range a tier of some thousand rows at most.
with span as materialized (
    select width, date_bin(width, statement_timestamp(), 'epoch') - width * (%(points)s - 1) as first
    from (select make_interval(secs => %(period_s)s) as width) as w
)
select s.at, t.name as tier, s.queued, s.oldest_s
from llmjobs_tier as t
cross join span
cross join lateral (
    (
        select span.first - span.width as at, b.queued, b.oldest_s
        from llmjobs_tiersample as b
        where b.tier_id = t.id and b.at < span.first
        order by b.at desc
        limit 1
    )
    union all
    select *
    from (
        select distinct on (date_bin(span.width, i.at, 'epoch')) date_bin(span.width, i.at, 'epoch') as at, i.queued, i.oldest_s
        from llmjobs_tiersample as i
        where i.tier_id = t.id and i.at >= span.first
        order by date_bin(span.width, i.at, 'epoch'), i.at desc
    ) as inside
) as s
