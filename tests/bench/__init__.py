"""The benchmark: `make bench`, or `python -m tests.bench [--quick] [--only PART,…]`.

The whole run takes an hour or more on two cores; `--quick` runs small sizes of the same, for the suite.

    ground.py       databases of its own, a simulator, workers and a web server: what is measured
    databases.py    the databases; backlog.py fills one by SQL, claims.py claims from one
    report.py       figures, their targets, the tables

    throughput.py   calls through the whole queue, beside a plain loop of the SDK's client (plain_loop.py)
    latency.py      from a POST to the provider, and from the provider's token to the viewer
    memory.py       a worker with 500 calls in flight
    noop.py         the whole life of a no-op job (noop_worker.py), beside other queues (peers/)
    limits.py       a provider's limits (limited.py): requests, beside other limiters (limiters.py); tokens
                    (token_limits.py); and what limits cost a no-op job (unlimited.py, plain_worker.py)
    submits.py      one submit, and in bulk
    posts.py        POST /api/jobs over HTTP (poster.py), beside a bare DRF view (bare_urls.py, bare_settings.py)
    viewers.py      viewers of streaming jobs at one web process (watcher.py): how late a token is, memory, connections
    fifo.py         the fair claim beside a plain FIFO one
    scale.py        a claim at a million jobs, and under what hurts queues
    asking.py       the statistics at a million jobs, and the places of a page
    shares.py       shares in settled tokens (race.py), and the neighbour of a flood (flood.py)
    wakeups.py      20 processes submit into lanes that go idle at that moment
    statements.py   claim and settle at two sizes of the backlog

Machines are noisy: what is compared runs in one run, in turns, and is told as a ratio, the median of several rounds.
A part is a function of the ground that returns a table; `__main__.py` lists them.
"""
