"""Limits of providers under real workers: used nearly whole, never overrun, by any number of processes; and crashes,
blocks, large jobs and lies. Half a minute each at most; `make bench` has the same for three minutes.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmjobs.models import Attempt, BucketTurn, Client, Job, Model, Worker
from llmjobs.models.buckets import BucketKind
from llmjobs.providers.headers import told
from llmjobs.testing import SimulatorProcess
from tests.bench.limited import Span, reading
from tests.factories import make_client, make_model, make_provider
from tests.hands import hands, submit
from tests.helpers import eventually
from tests.worker.running import working
from tests.worker.scripted import json_answer, scripted
from tests.worker_process import WorkerProcess, worker_process

pytestmark = pytest.mark.django_db(transaction=True)

RPM, TPM = 600, 100_000_000
SPAN = Span(3, 20)
START_S = 90  # in which processes come up, on a machine that is busy with other tests
SECOND_JITTER_S = 0.12  # the most that is allowed for of a window of a second; who comes later may be refused
AS_INSTALLED = {  # not in the hurry that other tests of workers are in
    "LLMJOBS_LEASE_S": "12",
    "LLMJOBS_HEARTBEAT_S": "3",
    "LLMJOBS_POLL_S": "0.5",
    "LLMJOBS_RECLAIM_EVERY_S": "2",
    "LLMJOBS_SWEEP_EVERY_S": "2",
}


@pytest.fixture
def client(transactional_db: None) -> Client:
    return make_client("acme", tier="enterprise")


def model_at(simulator: SimulatorProcess, name: str, **limits: Any) -> Model:
    provider = make_provider(name, base_url=simulator.url)
    return make_model(name, provider=provider, **{"rpm": RPM, "tpm": TPM, **limits})


def ask(client: Client, pool: Model, words: str, count: int = 1, **fields: Any) -> list[Job]:
    return submit(client, pool, count, body={"messages": [{"role": "user", "content": words}]}, **fields)


def bucket_of(pool: Model) -> BucketTurn:
    return BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=pool.pk).latest("turn")


def slot_of(attempt: Attempt) -> float:
    """When it was to be sent, Unix seconds."""
    assert attempt.slot_s is not None
    return attempt.claimed_at.timestamp() + attempt.slot_s


def slots_of(pool: Model, **which: Any) -> list[float]:
    return sorted(slot_of(attempt) for attempt in Attempt.objects.filter(pool=pool, **which))


def passed(until: float) -> None:
    assert time.monotonic() >= until


@contextmanager
def worker_processes(count: int) -> Iterator[list[WorkerProcess]]:
    with ExitStack() as stack:
        yield [stack.enter_context(worker_process("--drain-timeout", "0", **AS_INSTALLED)) for _ in range(count)]


def test_four_workers_use_a_limit_nearly_whole_and_are_never_refused(client):
    """Of a sliding minute, and of a second each; failed calls count.

    In half a minute nobody can overrun a minute's limit, so its slots are held to the pace that it follows from. Of the
    second's limit, who came too late for his slot may be refused, no other: with a machine this busy that happens.
    """
    failing = {"rpm": RPM, "tpm": TPM, "ttft_ms": 200, "fault": "server_error", "fail_rate": 0.03}
    with (
        SimulatorProcess(window="sliding", **failing) as by_minute,
        SimulatorProcess(window="second", **failing) as by_second,
    ):
        minute, second = model_at(by_minute, "minute"), model_at(by_second, "second", window="second")
        for pool in (minute, second):
            ask(client, pool, "Say something. [[tokens=5]]", count=400, max_attempts=20)
        with worker_processes(4):
            eventually(lambda: _has_begun(minute, second), START_S)
            until = time.monotonic() + SPAN.after_s + SPAN.for_s + 1
            eventually(lambda: passed(until), 60)
        ledger = by_second.ledger()
        found = reading(by_minute.ledger(), minute.name, SPAN)

    assert found.refusals == 0
    assert found.requests_used(RPM) >= 0.95
    assert _most_in_a_row(slots_of(minute), 594 / 60.25) <= 1 + 6
    slots = slots_of(second)
    assert _most_in_a_row(slots, 10 / 1.06) <= 1.01  # of a slot: a rate that follows the jitter moves it by a fraction
    steady = [slot for slot in slots if 0 <= slot - slots[0] - SPAN.after_s < SPAN.for_s]
    assert len(steady) >= 0.88 * SPAN.for_s * RPM / 60
    arrived = {call["client_request_id"]: call["at"] for call in ledger}
    attempts = Attempt.objects.filter(pool=second).select_related("job")
    late = [a for a in attempts if arrived.get(f"{a.job.public_id}.{a.number}", 0) > slot_of(a) + SECOND_JITTER_S]
    assert reading(ledger, second.name, SPAN).refusals <= len(late)


def _most_in_a_row(slots: list[float], per_s: float) -> float:
    """The most that a window of any length has above what `per_s` brings in it: the burst that these slots need."""
    level, most, before = 0.0, 0.0, 0.0
    for slot in slots:
        level = max(0.0, level - (slot - before) * per_s) + 1
        most, before = max(most, level), slot
    return round(most, 3)


def _has_begun(*pools: Model) -> None:
    assert all(Job.objects.filter(pool=pool, started_at__isnull=False).exists() for pool in pools)


def test_a_killed_worker_neither_frees_its_budget_early_nor_loses_it_for_good(client):
    """What a crashed call reserved stays until it has drained; then the job runs again, and counts as running once."""
    with SimulatorProcess(tpm=1_000_000, tokens_per_s=20) as simulator:
        pool = model_at(simulator, "model", tpm=24_000, token_policy="expected", max_running=1)
        with worker_process() as one, worker_process() as other:
            eventually(_both_are_up, START_S)
            [job] = ask(client, pool, "word " * 1_400 + "[[tokens=200]]")
            eventually(lambda: _was_called(simulator, 1), 20)
            drained_at = bucket_of(pool).tokens_at
            assert drained_at - simulator.ledger()[0]["at"] > 4, "it reserved more than a moment's worth"
            holder = Worker.objects.get(id=Attempt.objects.get(job=job).worker_id).pid
            (one if one.process.pid == holder else other).kill()
            eventually(lambda: _was_called(simulator, 2), 30)

        again = simulator.ledger()[1]
        assert drained_at - 0.01 <= again["at"] < drained_at + 3
        assert Attempt.objects.get(job=job, number=1).outcome == "lost"
        assert bucket_of(pool).running == 1


def _both_are_up() -> None:
    assert Worker.objects.count() == 2


def _was_called(simulator: SimulatorProcess, times: int) -> None:
    assert len(simulator.ledger()) >= times


def test_a_blocked_pool_burns_no_attempts_and_no_cpu_while_another_is_served_and_opens_without_a_burst(client):
    wait_s = 12
    with SimulatorProcess(fault=f"rate_limit::{wait_s}") as refusing, SimulatorProcess() as serving:
        blocked, other = model_at(refusing, "blocked"), model_at(serving, "other")
        ask(client, blocked, "Hello. [[tokens=2]]", count=100)
        with worker_processes(1) as [worker]:
            until = eventually(lambda: _blocked_until(blocked), START_S)
            refusing.control(fault=None)
            refused = len(refusing.ledger())
            jobs = ask(client, other, "Hello. [[tokens=2]]", count=5)
            eventually(lambda: _completed(jobs))
            began_at, began_cpu_s = time.monotonic(), cpu_s(worker.process.pid)
            eventually(lambda: passed(began_at + 3))
            assert (cpu_s(worker.process.pid) - began_cpu_s) / (time.monotonic() - began_at) < 0.02
            assert time.time() < until and len(refusing.ledger()) == refused
            eventually(lambda: _was_called(refusing, refused + 20), 20)
        calls = refusing.ledger()[refused:]

    assert calls[0]["at"] >= until - 0.01
    for nth, slot in enumerate(slots_of(blocked, outcome="completed")[:10], start=1):
        assert nth <= 1 + (slot - until) * RPM / 60 + 0.1
    assert not Job.objects.filter(failures__gt=0).exists()


def _blocked_until(pool: Model) -> float:
    """Once none of its calls is on its way any more."""
    bucket = bucket_of(pool)
    assert bucket.blocked_by == "rate_limit" and bucket.blocked_until is not None
    assert not Job.objects.filter(pool=pool, state="running").exists()
    return float(bucket.blocked_until)


def _completed(jobs: list[Job]) -> None:
    assert Job.objects.filter(pk__in=[job.pk for job in jobs], state="completed").count() == len(jobs)


def cpu_s(pid: int) -> float:
    """What a process has used of its cores, in its own code and the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_big_job_is_not_starved_by_small_ones_that_still_fit(client):
    """It waits until the bucket has drained for it, and nothing passes it meanwhile."""
    pool = make_model("model", rpm=TPM, tpm=60_000, token_policy="expected")
    many = make_client("many", tier="enterprise")
    submit(many, pool, 900, body={"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 20})
    with hands(1) as [hand]:
        small = hand.claim(pool, count=100)
        [big] = submit(
            client, pool, body={"messages": [{"role": "user", "content": "word " * 4_000}], "max_tokens": 20}
        )
        began_at, passing = time.monotonic(), 0

        def claimed_big() -> float:
            nonlocal passing
            ids = [job.id for job in hand.claim(pool, count=100)]
            passing += len(ids)
            assert big.pk in ids
            return time.monotonic() - began_at

        assert small, "the small ones fit"
        waited_s = eventually(claimed_big, 20)
    assert 1 < waited_s < 12, "5,000 tokens at a thousand a second"
    assert passing < 100


LIES = {
    "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT",
    "retry-after-ms": "-1500",
    "x-ratelimit-limit-requests": "-5",
    "x-ratelimit-remaining-requests": "99999999999999999999",
    "x-ratelimit-reset-requests": "yesterday",
    "x-ratelimit-limit-tokens": "0",
    "x-ratelimit-remaining-tokens": "NaN",
}


def test_headers_that_lie_change_nothing_and_are_counted(client):
    lies = told(LIES).lies
    assert lies >= len(LIES) - 1
    body = {
        "id": "c", "object": "chat.completion", "model": "model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
    }  # fmt: skip
    headers = "".join(f"{name}: {value}\r\n" for name, value in LIES.items())
    with scripted(json_answer(body, headers=headers)) as provider:
        pool = make_model("model", provider=make_provider("lying", base_url=provider.url), rpm=RPM, tpm=TPM)
        request = {"messages": [{"role": "user", "content": "Hello."}], "stream": False}
        jobs = submit(client, pool, 12, body=request)
        with working():
            eventually(lambda: _completed(jobs))

            def counted() -> BucketTurn:
                with hands(1) as [hand]:
                    hand.fold()
                bucket = bucket_of(pool)
                assert bucket.lies == lies * len(jobs)
                return bucket

            bucket = eventually(counted)
    said = (bucket.requests_limit, bucket.tokens_limit, bucket.requests_left, bucket.tokens_left)
    assert said == (None, None, None, None)
    assert (bucket.blocked_by, bucket.rate_factor, bucket.refusals, bucket.strikes, bucket.downs) == (None, 1, 0, 0, 0)
    assert Attempt.objects.count() == len(jobs)
