-- Called by: live.reading, for all jobs of a web process that were woken, or for one viewer's page of history.
-- Parameters: job_ids, positions (arrays of one length): each job is read after its position. {rows}, {bytes}: the most
-- a job, but one event at least, however large.
-- Returns: job_id, seq, type, data (as text: it goes to the browser as it is), at_ms (unix time), is_newest: nothing
-- came after it when this was read; by job, then seq.
-- Index: event_of_job (job_id, seq), one short range a job. LATERAL with its own limit, because one limit over all
-- would let a job with a long log hold up every other. One row more than wanted tells whether there is more.
select w.job_id, e.seq, e.type, e.data, e.at_ms, e.next_seq is null as is_newest
from unnest(%(job_ids)s::bigint[], %(positions)s::bigint[]) as w (job_id, position)
cross join lateral (
    select seq, type, data, at_ms, row_number() over up as place, lead(seq) over up as next_seq,
        sum(octet_length(data)) over up - octet_length(data) as bytes_before
    from (
        select seq, type, data::text as data, (extract(epoch from created_at) * 1000)::bigint as at_ms
        from llmjobs_jobevent
        where job_id = w.job_id and seq > w.position
        order by seq
        limit {rows} + 1
    ) as found
    window up as (order by seq)
) as e
where e.place <= {rows} and (e.place = 1 or e.bytes_before + octet_length(e.data) <= {bytes})
order by w.job_id, e.seq
