"""A worker inside the test's process: the real one, over real connections, in a thread with a loop of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmjobs.models import Job, JobEvent
from llmjobs.states import TERMINAL
from llmjobs.worker import Options, Report, Worker
from tests.helpers import WITHIN_S, eventually

STOP_WITHIN_S = 40


def run_until_empty(**options: Any) -> Report:
    """Everything that waits, runs and is retried, to its end."""
    return asyncio.run(Worker(Options(until_empty=True, **options)).run())


@contextmanager
def working(worker: Worker | None = None, **options: Any) -> Iterator[Worker]:
    """A worker that runs until the block ends; what it runs then is released."""
    worker = worker or Worker(Options(**options))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(worker.run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    try:
        eventually(lambda: _is_up(worker, thread))
        yield worker
    finally:
        for _ in range(2):
            if thread.is_alive():
                worker._loop.call_soon_threadsafe(worker.stop)
        thread.join(STOP_WITHIN_S)
        assert not thread.is_alive(), "the worker does not stop"
    if failed:
        raise failed[0]


def _is_up(worker: Worker, thread: threading.Thread) -> None:
    assert hasattr(worker, "_heartbeat") or not thread.is_alive(), "the worker does not come up"


def reaches(job: Job, *states: str, within_s: float = WITHIN_S) -> None:
    def look() -> None:
        assert (state := Job.objects.values_list("state", flat=True).get(pk=job.pk)) in states, state

    eventually(look, within_s)


def streams(job: Job) -> None:
    """Some text of the job has reached the log."""

    def look() -> None:
        assert JobEvent.objects.filter(job=job, type="delta").exists(), "no text yet"

    eventually(look)


def log_of(job: Job) -> list[tuple[str, Any]]:
    """(type, status or text) of each event, in order; deltas that follow each other as one."""
    told: list[tuple[str, Any]] = []
    for event in JobEvent.objects.filter(job=job).order_by("seq"):
        if event.type == "delta" and told and told[-1][0] == "delta":
            told[-1] = ("delta", told[-1][1] + event.data["text"])
        else:
            told.append((event.type, event.data.get("text") or event.data.get("status")))
    return told


def is_over(job: Job) -> bool:
    return Job.objects.values_list("state", flat=True).get(pk=job.pk) in TERMINAL
