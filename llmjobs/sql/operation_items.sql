-- Called by: operations.start, with the statement of a queryset (one column, the jobs' ids) in place of the mark in its
-- midst; its own parameters come between the two here.
-- Parameters: the operation; the most items (the caller gives one more than it takes).
-- Returns: nothing; the number of rows is how many jobs were found.
-- One statement: what matches is read as of one moment, no id leaves the database, and 100,000 take half a second. In the
-- order of the ids, so that the index of the items is filled from left to right.
insert into llmjobs_operationitem (operation_id, job_id)
select %s, chosen.id
from (/*selection*/) as chosen (id)
order by chosen.id
limit %s
on conflict do nothing
