"""20 processes submit, one job at a time, into lanes that go idle at that moment: no job stays behind, none runs twice.

Two more processes claim whatever is ready and settle it, and look only where the queue says that there is work: a lane
whose wake-up was lost would keep its jobs for ever. Nearly every claim empties some lane.
"""

import asyncio
import multiprocessing
import time
from multiprocessing.synchronize import Event

from django.db import connections
from django.db.models import Count

from llmjobs import queue
from llmjobs.models import Attempt, Client, Job
from llmjobs.states import State
from llmjobs.submissions import parse
from tests.bench import databases
from tests.bench.backlog import Backlog, clients_of_all_tiers
from tests.bench.claims import claimer
from tests.bench.ground import MODEL, Ground
from tests.bench.report import Table, progress

SUBMITTERS, CLAIMERS, JOBS, CLIENTS = 20, 2, 100_000, 4
PER_CLAIM = 16
REST_S = 0.001  # of a claimer that found nothing
COUNT_EVERY_S, TELL_EVERY_S = 1.0, 10.0
PRIORITIES = ("high", "normal", "low")
forked = multiprocessing.get_context("fork")  # the imports are done


def measure(ground: Ground, *, is_quick: bool) -> Table:
    jobs = 1_000 if is_quick else JOBS
    table = Table(f"{SUBMITTERS} processes submit {jobs:,} jobs, one by one, into lanes that go idle at that moment")
    backlog = Backlog.new()
    backlog.add_clients(clients_of_all_tiers(CLIENTS))
    with databases.using(backlog.database):
        began_at = time.monotonic()
        _run(backlog, jobs // SUBMITTERS)
        took_s = time.monotonic() - began_at
        asyncio.run(_clear(backlog))
        left = Job.objects.exclude(state=State.COMPLETED).count()
        attempts = Attempt.objects.values("job_id").annotate(times=Count("id"))
        table.at_most("jobs that stayed behind", left, 0, "", digits=0)
        table.at_most("jobs claimed more than once", attempts.filter(times__gt=1).count(), 0, "", digits=0)
        table.at_least("jobs that completed", Job.objects.filter(state=State.COMPLETED).count(), jobs, digits=0)
        table.add("    jobs a second, with all that", f"{jobs / took_s:,.0f}")
    backlog.drop()
    return table


def _run(backlog: Backlog, each: int) -> None:
    connections.close_all()  # a child must not share it
    done = forked.Event()
    submitters = [forked.Process(target=_submit, args=(number, each)) for number in range(SUBMITTERS)]
    claimers = [forked.Process(target=_claim, args=(backlog, done)) for _ in range(CLAIMERS)]
    for process in [*submitters, *claimers]:
        process.start()
    try:
        for number, process in enumerate(submitters):
            while process.is_alive():
                process.join(TELL_EVERY_S)
                progress(f"wakeups: {number} of {SUBMITTERS} submitters are through")
        done.set()
        for process in claimers:
            process.join()
        if failed := [process.name for process in [*submitters, *claimers] if process.exitcode]:
            raise RuntimeError(f"expected all processes to end well, {', '.join(failed)} did not")
    finally:
        for process in [*submitters, *claimers]:
            process.kill()


def _submit(number: int, each: int) -> None:
    clients = list(Client.objects.select_related("tier").order_by("id"))
    body = {"messages": [{"role": "user", "content": "Say hello."}]}
    asked = [parse({"model": MODEL, "body": body, "priority": priority}) for priority in PRIORITIES]
    for turn in range(number, number + each):
        client = clients[turn % CLIENTS]
        allowed = [one for one in asked if one.priority >= client.tier.max_priority]
        queue.submit_submissions(client, [allowed[turn // CLIENTS % len(allowed)]])


def _claim(backlog: Backlog, done: Event) -> None:
    asyncio.run(_claim_until(backlog, done))


async def _claim_until(backlog: Backlog, done: Event) -> None:
    """Until nothing is ready after all have submitted."""
    async with claimer(backlog.pool_id, backlog.database) as one:
        counted_at = time.monotonic()
        while True:
            was_done = done.is_set()
            if time.monotonic() - counted_at > COUNT_EVERY_S:
                await one.count()
                counted_at = time.monotonic()
            if not await queue.ready_pools(one.conn):
                if was_done:
                    return
                await asyncio.sleep(REST_S)
                continue
            jobs, _ = await one.claim(PER_CLAIM)
            if jobs:
                await one.settle(jobs)


async def _clear(backlog: Backlog) -> None:
    """What committed so late that only a sweep finds it; a lane whose wake-up was lost is not found by it."""
    async with claimer(backlog.pool_id, backlog.database) as one:
        await one.fold()
        while await queue.ready_pools(one.conn):
            jobs, _ = await one.claim(PER_CLAIM)
            if jobs:
                await one.settle(jobs)
            await one.fold()
