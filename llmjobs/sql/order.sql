-- Called by: places, for the next starts of a pool.
-- Parameters: pool; count; tiers: null, for all; short_only: false; exclude: none; is_look: true.
-- Literal: {n}, at least count.
-- Returns: job_id, client_id, weight, tier_id, tier_weight, in the order in which claims would take them now; where a wall
-- ends it, a row without a job. Locks: nothing. What is still in the inbox is not in it, nor what a pause or a limit of
-- its client holds back. Index: as `fair_order`, which see.
with gate as materialized (
    select true as is_open, 'expected' as token_policy, null::float8 as tokens_most
), {fair_order.sql}
select job_id, client_id, weight, tier_id, tier_weight
from (select * from ordered where place <= {n} and place <= coalesce((select min(place) from ordered where is_wall), {n})) as o
order by place
