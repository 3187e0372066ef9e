-- Called by: tallying.tally, after a sweep, under the same lock.
-- Parameters: minutes_s, ten_minutes_s, days_s: how long tallies by the minute, by ten minutes and by the day are kept.
-- Literal: {rows}, the most that are deleted of each at once.
-- What is tallied for ever (period 0) stays. Index: tally_grain, tallytime_grain, clientday_of_day: the oldest come first.
with kept as materialized (
    select period_s, statement_timestamp() - make_interval(secs => keep_s) as since
    from (values
        (60, %(minutes_s)s::float8), (600, %(ten_minutes_s)s::float8), (86400, %(days_s)s::float8)
    ) as k (period_s, keep_s)
), tallies as (
    delete from llmjobs_tally
    where ctid = any (array(
        select o.row
        from kept as k
        cross join lateral (
            select ctid as row from llmjobs_tally where period_s = k.period_s and at < k.since order by at limit {rows}
        ) as o
    ))
), times as (
    delete from llmjobs_tallytime
    where ctid = any (array(
        select o.row
        from kept as k
        cross join lateral (
            select ctid as row from llmjobs_tallytime where period_s = k.period_s and at < k.since order by at limit {rows}
        ) as o
    ))
)
delete from llmjobs_clientday
where ctid = any (array(
    select d.ctid
    from llmjobs_clientday as d
    where d.day < (select (since at time zone 'UTC')::date from kept where period_s = 86400)
    order by d.day
    limit {rows}
))
