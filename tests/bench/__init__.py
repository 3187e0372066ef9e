"""The benchmark: `make bench`, or `python -m tests.bench [--quick] [--only PART,…]`.

    ground.py       a database of its own, a simulator, workers and a web server: what is measured
    throughput.py   calls through the whole queue, beside a plain loop of the SDK's client
    plain_loop.py   that loop, as its user would write it; a process of its own
    latency.py      from a POST to the provider, and from the provider's token to the viewer
    memory.py       a worker with 500 calls in flight
    statements.py   bulk submit, and claim and settle at two sizes of the backlog
    report.py       figures, their targets, the tables

Machines are noisy: what is compared runs in one run, in turns, and is told as a ratio, the median of several rounds.
A part is a function of the ground that returns a table; `__main__.py` lists them.
"""
