"""Running what is queued, to its end, in a test: the real worker, in a thread of the test's process.

Owns where its calls go: to the simulator, whatever the tables say of providers, so that no test pays. Does not own what
the simulator says (simulator.py). Invariant: when `run_jobs` returns or raises, the worker, its thread and its
connections are gone.

Django is imported where it is used: pytest loads this before there are settings.
"""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from llmjobs.models import Client, Job
    from llmjobs.outcomes import Outcome
    from llmjobs.providers.calls import Call

LOOK_S = 0.02
NAMED_MAX = 5
# What would make a test wait: how often a worker looks, and how long it waits before it tries again.
QUICK = {
    "LLMJOBS_POLL_S": 0.05, "LLMJOBS_SWEEP_EVERY_S": 0.1, "LLMJOBS_EVENT_TICK_MS": 10, "LLMJOBS_HEARTBEAT_S": 0.5,
    "LLMJOBS_BACKOFF_BASE_S": 0.01, "LLMJOBS_BACKOFF_CAP_S": 0.05, "LLMJOBS_PROBE_S": 0.1, "LLMJOBS_PROBE_MAX_S": 0.1,
}  # fmt: skip
PATIENT = {"LLMJOBS_RETRY_SHARE": 0.0, "LLMJOBS_RETRY_MIN_PER_S": 0.0}  # what is to be tried again stays scheduled
SILENT = {"LLMJOBS_WEBHOOK_CONCURRENCY": 0}  # deliveries stay pending: an address in a test may be somebody's
LEFT = """
select exists (select from llmjobs_job where state in ('queued', 'running'))
    or exists (
        select from llmjobs_job
        where state = 'scheduled' and available_at < statement_timestamp() + make_interval(secs => %s))
    or exists (select from llmjobs_handlercall where state = 'pending' and tries = 0)
"""
# A row that a test's flush took, which a job needs, and the tiers that the migrations bring.
TIERS = (("free", 1, 5), ("pro", 4, 1), ("enterprise", 16, 0))  # name, weight, most urgent priority

_simulator_urls: list[str] = []  # of the simulators in use, the one in force last


class JobsLeft(TimeoutError):
    """Not all jobs ended in the time that was given; the message says which, and what they wait for."""


class HandlerFailed(RuntimeError):
    """A function that was to be told of a job's end raised."""


def run_jobs(
    *,
    until_empty: bool = True,
    timeout_s: float = 30.0,
    concurrency: int = 16,
    handlers_may_fail: bool = False,
    simulator_url: str | None = None,
) -> "list[Job]":
    """Run what is queued, and return these jobs as they are then, in the order of submission.

    Until nothing is queued, running, or due within `timeout_s`: retries, and what handlers submit, run too. With
    until_empty=False one attempt of each job that is queued now. Raises JobsLeft, and HandlerFailed where a handler
    raised, unless it may.

    The calls go to `simulator_url`, else to the simulator of the fixture `llm_simulator`. The test must commit:
    @pytest.mark.django_db(transaction=True).
    """
    from llmjobs.models import Job
    from llmjobs.models.jobs import JOB_RELATED
    from llmjobs.states import WAITING

    _refuse_in_transaction()
    before = Job.objects.order_by("-id").values_list("id", flat=True).first() or 0
    waiting = list(Job.objects.filter(state__in=WAITING).values_list("id", flat=True))
    queued_count = Job.objects.filter(state="queued").count()
    is_over = True
    if waiting and (until_empty or queued_count):
        with _at(simulator_url or _current_simulator_url(), retries=until_empty) as providers:
            max_jobs = None if until_empty else queued_count
            is_over = _run_worker(providers, timeout_s, max_jobs=max_jobs, concurrency=concurrency)
    jobs = Job.objects.select_related(*JOB_RELATED).order_by("id")
    ran = list(jobs.filter(id__in=waiting) | jobs.filter(id__gt=before))
    if not is_over:
        raise JobsLeft(_left(ran, timeout_s))
    if not handlers_may_fail:
        _refuse_failed_handlers([job.id for job in ran])
    return ran


async def arun_jobs(**options: Any) -> "list[Job]":
    """`run_jobs` for an async test."""
    from asgiref.sync import sync_to_async

    return await sync_to_async(run_jobs)(**options)


def make_client(name: str = "tests", *, tier: str = "enterprise", **fields: Any) -> "Client":
    """A client to submit for, or the one of this name; `fields` are those of the model, such as max_queued."""
    from llmjobs.models import Client, Tier

    seed()
    client, _ = Client.objects.update_or_create(
        name=name, defaults={"tier": Tier.objects.get_or_create(name=tier)[0], **fields}
    )
    return client


def seed() -> None:
    """Put back what migrations put in, and the flush after a test that commits takes out. Idempotent."""
    from llmjobs.models import ShardTurn, Tier, Turnstile

    shard, is_new = Turnstile.objects.get_or_create(id=1)
    ShardTurn.objects.get_or_create(shard=shard, defaults={"turn": 0})
    for name, weight, most in TIERS if is_new else ():
        Tier.objects.get_or_create(name=name, defaults={"weight": weight, "max_priority": most})


@contextmanager
def in_force(simulator_url: str) -> Iterator[None]:
    """`run_jobs` calls this one meanwhile."""
    _simulator_urls.append(simulator_url)
    try:
        yield
    finally:
        _simulator_urls.remove(simulator_url)


def _current_simulator_url() -> str:
    if not _simulator_urls:
        raise RuntimeError("expected a simulator: use the fixture llm_simulator, or say simulator_url")
    return _simulator_urls[-1]


def _refuse_in_transaction() -> None:
    from django.db import connection

    if connection.in_atomic_block:
        raise RuntimeError(
            "expected a test that commits, got one that is one transaction (the fixture db, or TestCase), of which a "
            "worker sees nothing: mark it @pytest.mark.django_db(transaction=True), or use TransactionTestCase"
        )


class _AtSimulator:
    """The real client of providers, with another address."""

    def __init__(self, url: str, concurrency: int) -> None:
        from llmjobs.providers.openai import OpenAIProviders

        self._url, self._inner = url, OpenAIProviders(calls_max=concurrency)

    async def run(self, call: "Call") -> "Outcome":
        call.base_url, call.api_key = self._url, "simulated"
        return await self._inner.run(call)

    async def close(self) -> None:
        await self._inner.close()


@contextmanager
def _at(url: str, *, retries: bool) -> Iterator[Callable[[int], _AtSimulator]]:
    """With settings for tests, and a key wherever a provider wants one: no real one leaves this process."""
    from django.test import override_settings

    from llmjobs.models import Provider

    names = Provider.objects.exclude(api_key_env="").values_list("api_key_env", flat=True)
    with (
        patch.dict(os.environ, dict.fromkeys(names, "simulated")),
        override_settings(**QUICK | SILENT | ({} if retries else PATIENT)),
    ):
        yield lambda concurrency: _AtSimulator(url, concurrency)


def _run_worker(
    providers: Callable[[int], _AtSimulator], timeout_s: float, *, max_jobs: int | None, concurrency: int
) -> bool:
    """Whether it came to its end in time: until nothing is left, or after `max_jobs`. Raises what the worker raised."""
    from llmjobs.worker import Options, Worker

    results: list[bool | BaseException] = []
    given_up = threading.Event()

    async def work() -> bool:
        worker = Worker(Options(concurrency=concurrency, max_jobs=max_jobs), providers(concurrency))
        running = asyncio.create_task(worker.run())
        is_over = await _until_quiet(running, given_up, timeout_s, looks=max_jobs is None)
        worker.stop()
        if not is_over:
            worker.stop()  # hands back what runs
        await running
        return is_over

    def thread() -> None:
        try:
            results.append(asyncio.run(work()))
        except BaseException as error:
            results.append(error)
        finally:
            gc.unfreeze()  # a worker's process is a worker's alone, this one is not

    running = threading.Thread(target=thread, name="llmjobs run_jobs")
    running.start()
    try:
        running.join()
    finally:  # Ctrl-C, or the time-out of a test
        given_up.set()
        running.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


async def _until_quiet(
    running: "asyncio.Task[Any]", given_up: threading.Event, timeout_s: float, *, looks: bool
) -> bool:
    """`looks`: until nothing is left; else until the worker ends by itself."""
    from llmjobs.database import connect_async

    clock = asyncio.get_running_loop().time
    until = clock() + timeout_s
    async with await connect_async() as conn:
        while clock() < until and not running.done() and not given_up.is_set():
            if looks:
                left = await (await conn.execute(LEFT, [until - clock()])).fetchone()
                if left is None or not left[0]:
                    return True
            await asyncio.wait([running], timeout=LOOK_S)
    return running.done()


def _left(jobs: "list[Job]", timeout_s: float) -> str:
    from llmjobs.places import places

    left = [job for job in jobs if not job.is_terminal]
    where = places([job for job in left if job.state == "queued"])
    words = []
    for job in left[:NAMED_MAX]:
        place = where.get(job.id)
        why = f", blocked by {place.blocked_by}" if place and place.blocked_by else ""
        words.append(f"{job.public_id} ({job.pool.name}) is {job.state} after {job.attempt} attempts{why}")
    more = f"; and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
    return f"expected all jobs to end within {timeout_s:g} s, got {len(left)} left: {'; '.join(words)}{more}"


def _refuse_failed_handlers(job_ids: list[int]) -> None:
    from llmjobs.models import HandlerCall

    failed = HandlerCall.objects.filter(job_id__in=job_ids, error__isnull=False).exclude(state="done").first()
    if failed is not None:
        raise HandlerFailed(f"the handler {failed.handler} raised: {failed.error}")
