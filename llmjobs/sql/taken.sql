-- Called by: limits.taken, once a request of a client that has limits of its own.
-- Parameters: client_id; rpm, tpm: its limits a minute, or null.
-- Returns: requests, tokens: what is taken of each limit, queued jobs included; null where there is no limit.
-- Locks: nothing. Index: the primary key of bucket turns, jobcount_grain, jobcountchange_of_client.
select requests, tokens
from llmjobs_taken(%(client_id)s, %(rpm)s, %(tpm)s)
