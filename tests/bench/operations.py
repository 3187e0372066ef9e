"""A bulk requeue of 100,000 dead letters, and what claims and submits feel of it.

Beside the worker's duty that carries the operation out, one process submits a job at a time, one claims and settles,
and one counts and tallies, as workers do. The first two are paced, and timed with and without the operation.
"""

import asyncio
import contextlib
import multiprocessing
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from django.db import connections
from psycopg import AsyncConnection

from llmjobs import counts, operations, queue, tallying
from llmjobs.database import dsn
from llmjobs.models import Client, Job, Operation, OperationState
from llmjobs.operation_duty import OperationDuty
from tests.bench import databases
from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.claims import claimer
from tests.bench.ground import Ground, jobs_of
from tests.bench.report import Table, percentile, progress

DEAD, CLIENTS, MOST_S, MOST_START_S = 100_000, 100, 60, 2
PER_CLAIM, PACE_S, WITHOUT_S = 10, 0.02, 10.0
forked = multiprocessing.get_context("fork")  # the imports are done

# As the verbs leave them: they ran, then died.
DYING = """
insert into llmjobs_job (
    public_id, pool_id, client_id, tier_id, endpoint, priority, size, state, attempt, failures, epoch, worker_id,
    est_input_tokens, est_output_tokens, est_cost, max_attempts, timeout_s, retry_for_s, retry_until, started_at)
select gen_random_uuid(), %(pool)s, c.id, c.tier_id, '/v1/chat/completions', 5, 0, 'running', 5, 4, 10,
    gen_random_uuid(), 8, 32, 40, 5, 120, 3600, now(), now() - interval '1 hour'
from llmjobs_client as c
cross join generate_series(1, %(each)s) as n
"""
AROUND = """
with requests as (
    insert into llmjobs_jobrequest (job_id, client_id, body, prompt_hash)
    select id, client_id, '{"messages": [{"role": "user", "content": "Say hello."}]}', '' from llmjobs_job
    where state = 'running'
)
insert into llmjobs_jobresult (job_id, error_code, error_message, error_class, provider_status, error_attempt)
select id, 'server_error', 'The server had an error.', 'unknown', 500, 5 from llmjobs_job where state = 'running'
"""
DIED = """
update llmjobs_job
set state = 'dead', failures = 5, epoch = epoch + 1, worker_id = null, finished_at = now()
where state = 'running'
"""


def measure(ground: Ground, *, is_quick: bool) -> Table:
    dead = 2_000 if is_quick else DEAD
    without_s = 1.0 if is_quick else WITHOUT_S
    table = Table(f"Bulk requeue of {dead:,} dead letters, beside claims of {PER_CLAIM} and submits of one")
    backlog = _filled(dead)
    with databases.using(backlog.database):
        with _load(backlog) as load:
            time.sleep(without_s)
            load.lap()
            began_at = time.monotonic()
            operation = operations.start("requeue", Job.objects.filter(state="dead"), user=None)
            start_s = time.monotonic() - began_at
            asyncio.run(_carry_out(operation))
            took_s = time.monotonic() - began_at
            load.lap()
            time.sleep(without_s)
        left = Job.objects.filter(state="dead").count()
        operation.refresh_from_db()
    backlog.drop()
    table.at_most("from the click to the end", took_s, MOST_S, "s")
    table.at_most("    of that to fix the jobs", start_s, MOST_START_S, "s", digits=2)
    table.at_most("dead letters that stayed behind", left, 0, "", digits=0)
    table.add("    requeued", f"{operation.changed:,}, {operation.changed / took_s:,.0f} a second")
    for what, laps in load.taken_ms.items():
        without = laps[0] + laps[2]
        p95s = f"{percentile(laps[1], 95):.1f}, {percentile(without, 95):.1f} ms"
        table.add(f"{what}, p95 with it and without", p95s)
        table.add("    p50", f"{percentile(laps[1], 50):.1f}, {percentile(without, 50):.1f} ms")
        table.add("    the longest", f"{max(laps[1]):.0f}, {max(without):.0f} ms")
    return table


def _filled(dead: int) -> Backlog:
    """A database with its dead letters, and with jobs to claim meanwhile."""
    progress(f"operations: {dead:,} dead letters")
    backlog = Backlog.new()
    backlog.add_clients(clients_of_all_tiers(CLIENTS))
    with backlog.connect() as conn:
        conn.execute(DYING, {"pool": backlog.pool_id, "each": dead // CLIENTS})
        conn.execute(AROUND)
        conn.execute(DIED)
    backlog.fill(max(20, dead // 500))
    backlog.analyze()
    return backlog


async def _carry_out(operation: Operation) -> None:
    """The worker's duty, to the end."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection[Any]]:
        async with await AsyncConnection.connect(**dsn()) as conn:
            yield conn

    duty = OperationDuty(connect)
    running = asyncio.create_task(duty.run())
    while await Operation.objects.filter(pk=operation.pk, state=OperationState.RUNNING).aexists():
        done = await Operation.objects.values_list("changed", flat=True).aget(pk=operation.pk)
        progress(f"operations: {done:,} requeued")
        await asyncio.sleep(0.5)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


class _load:
    """Claims and submits, in processes of their own. `lap` ends a stretch of their times."""

    def __init__(self, backlog: Backlog) -> None:
        self._done, self._pipes, self.taken_ms = forked.Event(), {}, dict[str, list[list[float]]]()
        self._laps = [forked.Event() for _ in range(2)]
        self._processes = []
        connections.close_all()  # a child must not share it
        for what, work in (("a claim", _claims), ("a submit", _submits)):
            here, there = forked.Pipe(duplex=False)
            self._pipes[what] = here
            self._processes.append(forked.Process(target=work, args=(backlog, self._laps, self._done, there)))
        self._processes.append(forked.Process(target=_counts, args=(backlog, self._done)))

    def __enter__(self) -> "_load":
        for process in self._processes:
            process.start()
        return self

    def lap(self) -> None:
        next(lap for lap in self._laps if not lap.is_set()).set()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        try:
            self.taken_ms = {what: pipe.recv() for what, pipe in self._pipes.items()}
        finally:
            for process in self._processes:
                process.join(10)
                process.kill()


def _claims(backlog: Backlog, laps: list[Event], done: Event, told: Connection) -> None:
    async def claim() -> list[list[float]]:
        taken: list[list[float]] = [[], [], []]
        async with claimer(backlog.pool_id, backlog.database) as one:
            while not done.is_set():
                jobs, took_ms = await one.claim(PER_CLAIM)
                taken[sum(lap.is_set() for lap in laps)].append(took_ms)
                if jobs:
                    await one.settle(jobs)
                await asyncio.sleep(PACE_S)
        return taken

    told.send(asyncio.run(claim()))


def _submits(backlog: Backlog, laps: list[Event], done: Event, told: Connection) -> None:
    taken: list[list[float]] = [[], [], []]
    clients, jobs = list(Client.objects.select_related("tier")), jobs_of(1, "Say hello.")
    for number in range(10_000_000):
        if done.is_set():
            break
        began_at = time.perf_counter()
        queue.submit_submissions(clients[number % len(clients)], jobs)
        taken[sum(lap.is_set() for lap in laps)].append((time.perf_counter() - began_at) * 1000)
        time.sleep(PACE_S)
    told.send(taken)


def _counts(backlog: Backlog, done: Event) -> None:
    async def count() -> None:
        async with claimer(backlog.pool_id, backlog.database) as one:
            while not done.is_set():
                await one.count()
                await tallying.tally(one.conn)
                await asyncio.sleep(counts.COUNT_EVERY_S)

    asyncio.run(count())
