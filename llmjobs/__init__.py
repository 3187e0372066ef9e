"""llmjobs: LLM calls as jobs, with Postgres as queue, ledger and coordinator.

The life of a job, and the module that a reader opens for each step:

    submit    queue.py          a row, in the caller's transaction
    claim     queue.py, sql/    fair order, inside the rate limits, under a lease
    run       execution.py      providers/ streams; events.py keeps what it said
    settle    outcomes.py       how the attempt ended is a value; queue.py writes it
    watch     events.py, live/  browsers read the log and are woken when there is more
    mend      maintenance.py    lost leases, due retries, retention

Imports go only downward, from the edges (api, live, console, admin, management) to conf.py and errors.py.
"""

__version__ = "1.0.0"
