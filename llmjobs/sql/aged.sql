-- Included by: fold and claim, as a lateral subquery, for a lane that has priority, size and new_head_at, and aging_s.
-- Returns: new_level, 0 to 9: the priority, raised once for each aging_s that the head has waited, and the size;
-- new_ages_at: when that rises next, null where it never does.
-- The millionth covers that a time, taken apart and put together, may fall short of itself.
select
    ((p.rank - r.raised) * 2 + size)::smallint as new_level,
    case when aging_s > 0 and r.raised < p.rank then new_head_at + make_interval(secs => aging_s * (r.raised + 1)) end as new_ages_at
from (select case priority when 0 then 0 when 1 then 1 when 5 then 2 when 8 then 3 else 4 end as rank) as p
cross join lateral (
    select case
        when aging_s > 0 and new_head_at < statement_timestamp()
        then least(p.rank, floor(extract(epoch from statement_timestamp() - new_head_at) / aging_s + 1e-6))::int
        else 0
    end as raised
) as r
