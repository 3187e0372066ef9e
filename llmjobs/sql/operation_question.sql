-- Called by: admin.job_actions, with the statement of a queryset (one column, the jobs' states) in place of the mark.
-- Parameters: the queryset's own, then the most jobs that are counted.
-- Returns: state, jobs. What a question is asked with; the operation counts again, and exactly, when it starts.
select chosen.state, count(*)
from (/*selection*/ limit %s) as chosen (state)
group by chosen.state
order by count(*) desc, chosen.state
