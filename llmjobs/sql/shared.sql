-- Called by: sharing.shown, once a page, and each time that the page asks for more text.
-- Parameters: hash: SHA-256 of the token, in hex; with_body: the request too; chars: the most of the answer.
-- Returns: no row, or what the link shows: its link, the model that was asked for, how the job stands, what was asked (or
-- null), the text so far, and whether nobody was noted to see it within a minute.
-- Locks: nothing. Index: the unique one of llmjobs_sharedlink.hash; primary keys; event_of_job.
-- Why: one answer for a link that is unknown, expired, revoked, or whose job is gone or erased: no row.
select s.id as link_id, s.expires_at, m.name as model, j.state as status, j.finished_at is not null as is_terminal, j.epoch,
    j.created_at, j.finished_at, case when %(with_body)s then r.body end as body,
    coalesce(
        case
            when j.state = 'running' then (
                select left(string_agg(e.data ->> 'text', '' order by e.seq), %(chars)s)
                from llmjobs_jobevent as e
                where e.job_id = j.id and e.seq > j.epoch::bigint << 20 and e.type = 'delta'
            )
            else left(o.output_text, %(chars)s)
        end, '') as text,
    coalesce(s.last_seen_at < statement_timestamp() - interval '1 minute', true) as is_newly_seen
from llmjobs_sharedlink as s
join llmjobs_job as j on j.id = s.job_id
join llmjobs_jobrequest as r on r.job_id = j.id and r.body <> ''
join llmjobs_model as m on m.id = coalesce(j.home_id, j.pool_id)
left join llmjobs_jobresult as o on o.job_id = j.id
where s.hash = %(hash)s and s.revoked_at is null and s.expires_at > statement_timestamp()
