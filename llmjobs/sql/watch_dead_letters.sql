-- Called by: watch.
-- Literal: {rows}, the most that are counted of ten minutes.
-- Returns: one row: recent, of the last ten minutes; usual, in ten minutes of the hour before; and what most of the recent
-- ones have in common: jobs, error_code, model.
-- What was discarded or requeued meanwhile does not count.
-- Index: deadletter_since.
with recent as materialized (
    select error_code, pool_id
    from llmjobs_deadletter
    where since > statement_timestamp() - interval '10 min'
    order by since desc
    limit {rows}
), before as (
    select
    from llmjobs_deadletter
    where since > statement_timestamp() - interval '70 min' and since <= statement_timestamp() - interval '10 min'
    order by since desc
    limit 6 * {rows}
), most as (
    select pool_id, error_code, count(*)::int as jobs
    from recent
    group by pool_id, error_code
    order by jobs desc, pool_id, error_code
    limit 1
)
select (select count(*) from recent)::int as recent, (select count(*) from before) / 6.0::float8 as usual,
    m.jobs, m.error_code, p.name as model
from (select) as one
left join most as m on true
left join llmjobs_model as p on p.id = m.pool_id
