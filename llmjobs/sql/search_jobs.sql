-- Called by: api/walking.py, for some jobs that a caller may see.
-- Parameters: ids; words, and quoted: the same as they stand inside a string of JSON; chars: how much of a text is read.
-- Returns: the ids of those jobs whose prompt, answer or values of metadata hold the words, in any case.
-- Locks: nothing. Index: primary keys.
-- Why: a body is JSON text. It is looked through as such first, which is quick, and only where it has the words are its
-- prompts taken out, since names of fields and roles are no words of anybody's. `case` keeps that order.
select r.job_id
from llmjobs_jobrequest as r
left join llmjobs_jobresult as o on o.job_id = r.job_id
where r.job_id = any (%(ids)s::bigint[]) and (
    position(lower(%(words)s) in lower(left(o.output_text, %(chars)s))) > 0
    or r.metadata <> '{}' and exists (
        select from jsonb_each_text(r.metadata) as m where position(lower(%(words)s) in lower(m.value)) > 0)
    or case
        when position(lower(%(quoted)s) in lower(left(r.body, %(chars)s))) > 0 then exists (
            select
            from (select r.body::jsonb as body offset 0) as b
            cross join (values
                ('$.messages[*].content'::jsonpath), ('$.messages[*].content[*].text'), ('$.instructions'), ('$.input[*]'),
                ('$.input[*].content'), ('$.input[*].content[*].text')) as p (path)
            cross join lateral jsonb_path_query(b.body, p.path, silent => true) as v (value)
            where jsonb_typeof(v.value) = 'string' and position(lower(%(words)s) in lower(v.value #>> '{}')) > 0)
        else false
    end
)
