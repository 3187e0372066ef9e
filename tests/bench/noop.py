"""The whole life of a no-op job beside the queues that people would pick instead, on the same Postgres, in turns.

Ours is everything: submitted in bulk by this process while one worker process claims, runs, settles, writes the ledger,
the results and the events; the provider is an object in the worker. It counts from before the first row is submitted
until the last job has settled. The peers count their drain alone: their jobs are submitted before, and a drained one
leaves no ledger, no answer and no events. Same slots for all.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db.models import Max, Min

from llmjobs.models import Attempt, Job
from llmjobs.models import Worker as WorkerRow
from tests.bench import databases, peers
from tests.bench.ground import ROOT, Ground, jobs_of, last_job_id
from tests.bench.report import Table, median, progress, rounds

SLOTS = 256
OURS, THEIRS = 20_000, 4_000
LEAST = 4.0
PEERS = {"PgQueuer": "drain_pgqueuer", "Celery, Redis": "drain_celery"}
END_WITHIN_S = 120


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"The whole life of a no-op job, one worker process ({SLOTS} slots), beside other queues' drains")
    ours, drains, theirs = [], [], []
    count = OURS // 10 if is_quick else OURS
    try:
        python = peers.python(may_install=not is_quick)
        why_not = ""
    except peers.LeftOut as error:
        python, why_not = Path(), str(error)
    for number in range(1, 2 if is_quick else 4):
        progress(f"noop: round {number}")
        if not why_not:
            theirs.append(_theirs(python, "drain_procrastinate", THEIRS // 10 if is_quick else THEIRS))
        ours.append(_whole_life(ground, count))
        drains.append(_drain(ground, count))
    if theirs:
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        table.at_least("whole life, ours / Procrastinate's drain", median(ratios), LEAST)
        table.add("    Procrastinate's drain, jobs/s", f"{median(theirs):,.0f} {rounds(theirs)}")
    else:
        table.add("Procrastinate", f"left out: {why_not}")
    table.add("    ours, whole life, jobs/s", f"{median(ours):,.0f} {rounds(ours)}")
    table.add("    ours, what was submitted before, jobs/s", f"{median(drains):,.0f} {rounds(drains)}")
    for name, script in PEERS.items():
        table.add(name, _for_information(python, why_not, script, count))
    return table


def _for_information(python: Path, why_not: str, script: str, count: int) -> str:
    if script == "drain_celery" and not shutil.which("redis-server"):
        return "left out: there is no redis-server"
    if why_not:
        return f"left out: {why_not}"
    progress(f"noop: {script}")
    return f"drain {_theirs(python, script, count):,.0f} jobs/s"


def _theirs(python: Path, script: str, count: int) -> float:
    """Jobs a second of their drain, in a database of their own."""
    name = databases.fresh()
    where = ["2"] if script == "drain_celery" else [str(SLOTS)]
    target = [] if script == "drain_celery" else [databases.url(name)]
    command = [str(python), str(peers.HERE / f"{script}.py"), *target, str(count), *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    databases.drop(name)
    if done.returncode != 0:
        raise RuntimeError(f"{script} failed:\n{done.stderr}")
    return count / float(json.loads(done.stdout.splitlines()[-1])["drain_s"])


def _whole_life(ground: Ground, count: int) -> float:
    jobs, before = jobs_of(count, "hello " * 40), last_job_id()
    with _worker(ground, count):
        began_at = time.time()
        ground.submit(jobs)
    return count / (_last_finished_at(before, count) - began_at)


def _drain(ground: Ground, count: int) -> float:
    """From the first claim on."""
    before = last_job_id()
    ground.submit(jobs_of(count, "hello " * 40))
    with _worker(ground, count):
        pass
    began_at = Attempt.objects.filter(job_id__gt=before).aggregate(at=Min("claimed_at"))["at"].timestamp()
    return count / (_last_finished_at(before, count) - began_at)


def _last_finished_at(before: int, count: int) -> float:
    done = Job.objects.filter(id__gt=before, state="completed")
    if (found := done.count()) != count:
        raise RuntimeError(f"expected {count} completed jobs, got {found}")
    return float(done.aggregate(at=Max("finished_at"))["at"].timestamp())


@contextmanager
def _worker(ground: Ground, count: int) -> Iterator[None]:
    """A worker that is up, and at the end of the block has run so many jobs and ended."""
    command = [sys.executable, "-m", "tests.bench.noop_worker", str(SLOTS), "--count", str(count)]
    nowhere = subprocess.DEVNULL  # its log, a line a job, costs it the same
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere) as worker:
        try:
            here = WorkerRow.objects.filter(pid=worker.pid, stopped_at=None)
            ground.wait_until(lambda: worker.poll() is not None or here.exists(), "a worker")
            yield
            worker.wait(END_WITHIN_S)
        finally:
            worker.kill()
