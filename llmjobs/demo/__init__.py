"""`manage.py demo`: everything on one machine, with people and models to try it with.

    seeding.py    who is there: tiers' clients, users, keys, models; the secrets are kept, mode 0600
    processes.py  what runs: simulator, web server, workers; none of them outlives the demo
    site.py       which of them, with which arguments, and when they are ready
    showing.py    what a person at the terminal is told, and the first job
    client.py     the public HTTP API as a program outside uses it: submit, follow
    load.py       what `--once` submits: a mixed load, or a trace's
    trace.py      a file of arrivals and token counts
    running.py    a load on its way: submitted in time, followed live, until every job has ended
    summary.py    the table at its end, from the ledger

The demo uses the same commands and the same API as everybody. Nothing outside of it imports it, but for its command;
`simulatefairness` reads traces with `trace.py`.
"""
