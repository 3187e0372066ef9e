"""What limits and shares cost a no-op job: its whole life, with our claim and with a plain one, in turns.

Each in a database of its own, with the same worker in a process; `plain_worker.py` says what the other does without.
The limits are ample, so that both are as fast as they can be; ours reserves, charges and folds all the same.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import psycopg
from django.db.models import Max, Min

from llmjobs.models import Attempt, Client, Job, Model, Provider
from llmjobs.models import Worker as WorkerRow
from tests.bench import databases
from tests.bench.ground import MODEL, ROOT, Ground, jobs_of
from tests.bench.plain_worker import PREPARE, without_inbox
from tests.bench.report import Table, median, progress, rounds

SLOTS = 256
JOBS, ROUNDS = 20_000, 5
MOST_COST = 15  # percent
END_WITHIN_S, LOOK_EVERY_S = 180, 0.25
AMPLE = {"rpm": 100_000_000, "tpm": 2_000_000_000}


def add(table: Table, ground: Ground, *, is_quick: bool) -> None:
    count = JOBS // 10 if is_quick else JOBS
    for words, is_drain in (("whole life", False), ("drain of what was submitted before", True)):
        ours, plain = [], []
        for number in range(1, 2 if is_quick else ROUNDS + 1):
            progress(f"limits: no-op jobs, {words}, round {number}")
            ours.append(_jobs_per_s(ground, count, is_drain=is_drain, is_plain=False))
            plain.append(_jobs_per_s(ground, count, is_drain=is_drain, is_plain=True))
        cost = 100 * (1 - median(mine / other for mine, other in zip(ours, plain, strict=True)))
        name = f"no-op jobs, {words}: what limits and shares cost"
        if is_drain:
            table.add(name, f"{cost:.1f} %")
        else:
            table.at_most(name, cost, MOST_COST, "%")
        table.add("    ours, jobs/s", f"{median(ours):,.0f} {rounds(ours)}")
        table.add("    a plain FIFO claim, jobs/s", f"{median(plain):,.0f} {rounds(plain)}")


def _jobs_per_s(ground: Ground, count: int, *, is_drain: bool, is_plain: bool) -> float:
    database = databases.fresh()
    try:
        with databases.using(database), without_inbox() if is_plain else nullcontext():
            if is_plain:
                with psycopg.connect(**databases.parameters(database)) as conn:
                    conn.execute(PREPARE)
            Model.objects.create(
                name=MODEL, provider=Provider.objects.create(name="none", base_url="http://127.0.0.1:9/v1"), **AMPLE
            )
            return _run(ground, ground.make_client("bench", "enterprise"), count, is_drain=is_drain, is_plain=is_plain)
    finally:
        databases.drop(database)


def _run(ground: Ground, client: Client, count: int, *, is_drain: bool, is_plain: bool) -> float:
    """Jobs a second: from the first row, or from the first claim, to the last settle."""
    jobs = jobs_of(count, "hello " * 40)
    if is_drain:
        ground.submit(jobs, client)
    with _worker(ground, is_plain=is_plain):
        if not is_drain:
            ground.submit(jobs, client)
    done = Job.objects.filter(state="completed")
    if (found := done.count()) != count:
        raise RuntimeError(f"expected {count} completed jobs, got {found}")
    first = (
        Attempt.objects.aggregate(at=Min("claimed_at"))["at"]
        if is_drain
        else done.aggregate(at=Min("created_at"))["at"]
    )
    return float(count / (done.aggregate(at=Max("finished_at"))["at"] - first).total_seconds())


@contextmanager
def _worker(ground: Ground, *, is_plain: bool) -> Iterator[None]:
    """One that is up. At the end of the block it runs until all jobs have completed."""
    module = "tests.bench.plain_worker" if is_plain else "tests.bench.noop_worker"
    command = [sys.executable, "-m", module, str(SLOTS)]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere) as worker:
        try:
            here = WorkerRow.objects.filter(pid=worker.pid, stopped_at=None)
            ground.wait_until(lambda: worker.poll() is not None or here.exists(), "a worker")
            yield
            deadline = time.monotonic() + END_WITHIN_S
            while Job.objects.exclude(state="completed").exists() and time.monotonic() < deadline:
                time.sleep(LOOK_EVERY_S)  # a look costs both alike, and little
        finally:
            worker.kill()
