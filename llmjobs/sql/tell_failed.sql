-- Called by: incidents.Teller.tell, after a failure to tell operators.
-- Parameters: ids of one message; base_s, cap_s: seconds; it is told again after base · 2^failures, at most cap, less up to
-- a quarter.
-- Why less: incidents that came together, and workers that share a mail server, shall not try together for ever. One
-- number for all of a message, so that it stays one.
-- Locks: the incidents. Index: its primary key.
update llmjobs_incident
set tell_again_at = statement_timestamp()
        + make_interval(secs => least(%(cap_s)s, %(base_s)s * power(2, least(tell_failures, 30))) * (1 - (select random()) / 4)),
    tell_failures = least(tell_failures + 1, 1000)
where id = any (%(ids)s)
