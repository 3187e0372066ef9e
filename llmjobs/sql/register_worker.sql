-- Called by: the worker, once at its start.
insert into llmjobs_worker (id, host, pid, version, slots, pools, tiers)
values (%(id)s, %(host)s, %(pid)s, %(version)s, %(slots)s, %(pools)s, %(tiers)s)
