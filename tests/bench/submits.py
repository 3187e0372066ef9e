"""Submitting, with Django's connection as it is for users: one job in autocommit, and batches.

One submit is timed twice: what it waits for Postgres (the model, the statement with its commit, and the wake-up in a
transaction of its own; each with its way there and back), and the whole call, with the estimate and Django's ORM. What
was submitted is counted in between, as a worker does each second, which is not timed.
"""

import time
from collections.abc import Callable
from typing import Any

from django.db import connection

from llmjobs import counts, queue
from llmjobs.models import Client
from llmjobs.submissions import Submission
from tests.bench import databases
from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.ground import SUBMIT_BATCH, Ground, jobs_of
from tests.bench.report import Table, median, percentile, progress, rounds

ONE_P50_MS, BULK_PER_S = 2.0, 8_000
PROMPT = "Say something. " * 10


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"Submitting, one at a time and {SUBMIT_BATCH} a batch")
    backlog = Backlog.new()
    backlog.add_clients(clients_of_all_tiers(10))
    with databases.using(backlog.database):
        clients = list(Client.objects.select_related("tier"))
        progress("submits: one at a time")
        ones_ms, database_ms = _ones(clients, 200 if is_quick else 2_000)
        progress("submits: in bulk")
        rates = [_bulk(clients, 2_000 if is_quick else 20_000) for _ in range(3)]
    backlog.drop()
    table.at_most("one, p50 in the database", percentile(database_ms, 50), ONE_P50_MS, "ms", digits=2)
    table.add("    p95", f"{percentile(database_ms, 95):.2f} ms")
    table.add("    the whole call, p50, p95", f"{percentile(ones_ms, 50):.2f}, {percentile(ones_ms, 95):.2f} ms")
    table.at_least("in bulk, jobs/s", median(rates), BULK_PER_S)
    table.add("    rounds", rounds(rates))
    return table


def _ones(clients: list[Client], count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each: the whole call, and its share in the database."""
    jobs = jobs_of(1, PROMPT)
    queue.submit_submissions(clients[0], jobs)  # warm
    taken_ms, database_ms = [], []

    def timed(execute: Callable[..., Any], *args: Any) -> Any:
        began_at = time.perf_counter()
        try:
            return execute(*args)
        finally:
            database_ms[-1] += (time.perf_counter() - began_at) * 1000

    for number in range(count):
        with connection.execute_wrapper(timed):
            database_ms.append(0.0)
            taken_ms.append(_ms(clients[number % len(clients)], jobs))
        if number % 300 == 0:
            counts.help_count(least=0)
    return taken_ms, database_ms


def _bulk(clients: list[Client], count: int) -> float:
    """Jobs a second."""
    jobs, took_ms = jobs_of(SUBMIT_BATCH, PROMPT), 0.0
    for number in range(count // SUBMIT_BATCH):
        took_ms += _ms(clients[number % len(clients)], jobs)
        if number % 15 == 0:
            counts.help_count(least=0)
    return count / took_ms * 1000


def _ms(client: Client, jobs: list[Submission]) -> float:
    began_at = time.perf_counter()
    queue.submit_submissions(client, jobs)
    return (time.perf_counter() - began_at) * 1000
