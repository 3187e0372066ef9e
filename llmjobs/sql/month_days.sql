-- Called by: usage.of_month.
-- Parameters: client; month: its first day.
-- Returns: a row a day of that month up to today (UTC), the oldest first, days on which nothing was used too: day, jobs,
-- attempts, input_tokens, output_tokens, usd. Index: clientday_of_day, a probe a day.
select g.day::date, coalesce(d.jobs, 0), coalesce(d.attempts, 0), coalesce(d.input_tokens, 0), coalesce(d.output_tokens, 0),
    coalesce(d.usd, 0)
from (select (statement_timestamp() at time zone 'UTC')::date as today) as n
cross join lateral generate_series(
    %(month)s::date, least(n.today, (%(month)s::date + interval '1 month' - interval '1 day')::date), interval '1 day'
) as g (day)
left join lateral (
    select * from llmjobs_clientday where day = g.day::date and client_id = %(client)s limit 1
) as d on true
order by g.day
