-- Called by: samples.sample, third in its transaction, by one at a time.
-- Parameters: every_s: a tier whose last sample is younger is left alone; keep_s: how long samples are kept; thin_s: when
-- they are older than that, the last of each minute stays. Literal: {rows}, the most that are deleted of a tier.
-- Returns: taken (samples).
-- Notes how each tier's queue stands, if that changed since its last sample, or if jobs wait or run there.
-- Index: of tiers.sql; the primary key of llmjobs_tiersample, short ranges.
with taken as (
    insert into llmjobs_tiersample (tier_id, at, queued, running, scheduled, oldest_s)
    select n.tier_id, statement_timestamp(), n.queued, n.running, n.scheduled,
        extract(epoch from statement_timestamp() - n.oldest_at)
    from ({tiers.sql}) as n
    left join lateral (
        select * from llmjobs_tiersample where tier_id = n.tier_id order by at desc limit 1
    ) as s on true
    where s.at is null
        or s.at <= statement_timestamp() - make_interval(secs => %(every_s)s)
            and (
                n.queued > 0 or n.running > 0
                or (n.queued, n.running, n.scheduled) is distinct from (s.queued, s.running, s.scheduled)
            )
    returning tier_id
), deleted as (
    delete from llmjobs_tiersample
    where ctid = any (array(
        select o.row
        from llmjobs_tier as t
        cross join lateral (
            (
                select ctid as row
                from llmjobs_tiersample
                where tier_id = t.id and at < statement_timestamp() - make_interval(secs => %(keep_s)s)
                order by at
                limit {rows}
            )
            union all
            (
                select s.ctid
                from llmjobs_tiersample as s
                where s.tier_id = t.id and s.at < statement_timestamp() - make_interval(secs => %(thin_s)s)
                    and s.at >= statement_timestamp() - make_interval(secs => %(thin_s)s + 600)
                    and exists (
                        select
                        from llmjobs_tiersample as l
                        where l.tier_id = s.tier_id and l.at > s.at
                            and l.at < date_bin('1 minute', s.at, 'epoch') + interval '1 minute'
                    )
                limit {rows}
            )
        ) as o
    ))
)
select count(*)::int as taken
from taken
