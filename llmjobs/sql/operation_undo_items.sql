-- Called by: operations.undo.
-- Parameters: id: the new operation; undoes: the one that it undoes.
-- Returns: nothing; the number of rows is how many jobs that one changed.
-- Each item brings what its job was, and the epoch in which the operation left it: who has another by then was touched.
insert into llmjobs_operationitem (operation_id, job_id, epoch, target)
select %(id)s, job_id, epoch, was
from llmjobs_operationitem
where operation_id = %(undoes)s and did = 'changed'
order by job_id
