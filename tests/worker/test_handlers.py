"""A worker ends a job and calls its handler in one transaction; whatever the handler does, the result stands."""

import asyncio
import signal
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.utils import timezone

from llmjobs import host_calls, host_threads, queue
from llmjobs.models import HandlerCall, Job, JobEvent
from llmjobs.models import Worker as WorkerRow
from llmjobs.worker import Options, Worker
from tests import host_handlers
from tests.hands import hands, settlement
from tests.helpers import aeventually, eventually
from tests.host_handlers import HERE, saved
from tests.worker.running import log_of, reaches, run_until_empty, working
from tests.worker.test_writer import Desk
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)

# One that raises leaves the settle to its own transaction; the others end that, and the job is settled without them.
RAISING = [
    "raises", "exits", "fails_in_sql", "hides_a_failure_in_sql", "asks_for_a_rollback", "leaves_a_block_open",
    "breaks_a_constraint_of_the_commit", "returns_a_coroutine",
]  # fmt: skip
BREAKING = ["closes_the_connection", "connects_again", "rolls_back_in_sql", "has_its_session_ended"]


def ask(client, pool, handler="save", words="Hello. [[tokens=2]]", **asked):
    said = [{"role": "user", "content": words}]
    return queue.submit(client=client, model=pool.name, messages=said, on_settled=f"{HERE}.{handler}", **asked)


def call_of(job):
    return HandlerCall.objects.get(job_id=job.id)


@pytest.fixture
def no_second_call(settings):
    """What is left pending stays so: the duty has looked at its start, and comes back after the test."""
    settings.LLMJOBS_SWEEP_EVERY_S = 600


def test_a_handler_gets_the_ended_job_with_its_result(client, pool, simulator, no_second_call):
    good, bad = ask(client, pool), ask(client, pool, words="Hello. [[fault=bad_request]]")
    report = run_until_empty()
    assert report.ended == {"completed": 1, "failed": 1}
    text = Job.objects.select_related("result").get(id=good.id).result.output_text
    assert text and (saved(good), saved(bad)) == ([f"completed {text}"], ["failed "])
    assert set(HandlerCall.objects.values_list("state", "tries")) == {("done", 1)}
    assert [kind for kind, _ in log_of(good)] == ["status", "status", "delta", "done"]
    assert connection.in_atomic_block is False


def test_whatever_a_handler_does_the_result_stands_and_the_call_is_left(client, pool, simulator, no_second_call):
    jobs = {handler: ask(client, pool, handler) for handler in (*RAISING, *BREAKING, "save")}
    report = run_until_empty()
    assert sum(report.ended.values()) == len(jobs) and report.lease_lost == 0
    for handler, job in jobs.items():
        told = Job.objects.select_related("result").get(id=job.id)
        assert (told.state, bool(told.result.output_text)) == ("completed", True), handler
        call = call_of(job)
        expected = ("done", 1) if handler == "save" else ("pending", int(handler in RAISING))
        assert (call.state, call.tries) == expected, handler
        assert bool(call.error) == (handler in RAISING), handler
        assert len(saved(job)) == (handler == "save"), handler
    assert len(simulator.ledger()) == len(jobs), "no result was lost and paid for again"


def test_what_a_handler_does_after_the_commit_undoes_nothing(client, pool, simulator, no_second_call):
    job = ask(client, pool, "raises_after_the_commit")
    assert run_until_empty().ended == {"completed": 1}
    assert (len(saved(job)), call_of(job).state) == (1, "done")


def fail_commits(monkeypatch, *, after):
    """Those of handlers' transactions: before they happen, or after it, the answer lost."""
    commit = DatabaseWrapper.commit

    def failing(self):
        is_one = threading.current_thread().name == "llmjobs handler"
        if after or not is_one:
            commit(self)
        if is_one:
            raise OperationalError("gone")

    monkeypatch.setattr(DatabaseWrapper, "commit", failing)


@pytest.mark.parametrize("is_lost", [True, False])
def test_the_end_and_what_the_handler_wrote_commit_together(
    client, pool, simulator, monkeypatch, no_second_call, is_lost
):
    fail_commits(monkeypatch, after=not is_lost)
    job = ask(client, pool)
    report = run_until_empty()
    assert sum(report.ended.values()) == 1 and report.lease_lost == 0
    job.refresh_from_db()
    assert (job.state, len(saved(job))) == ("completed", 0 if is_lost else 1)
    assert call_of(job).state == ("pending" if is_lost else "done")
    assert JobEvent.objects.filter(job=job, type="done").count() == 1


def test_the_last_words_of_an_attempt_come_before_its_end(client, pool, settings):
    """What comes after the end is dropped: the lease is gone."""
    settings.LLMJOBS_SETTLE_TICK_MS = 1
    job = ask(client, pool)

    async def run(desk, claimed):
        attempt = desk.attempt(claimed)
        attempt._on_text("bye")
        desk.writer.settle(attempt, settlement(claimed))
        writing = asyncio.create_task(desk.writer.run())
        await aeventually(lambda: _ended(desk))
        desk.writer.close()
        await writing

    with hands(1) as [hand]:
        asyncio.run(run(Desk(hand.worker), hand.claim(pool)[0]))
    assert log_of(job)[2:] == [("delta", "bye"), ("done", "completed")] and saved(job) == ["completed said"]


async def _ended(desk):
    assert desk.ended


def test_a_handler_s_queries_are_planned_as_the_host_s(client, pool, simulator, no_second_call):
    """A settle pins the planner for its transaction."""
    job = ask(client, pool, "sees_the_planner")
    run_until_empty()
    assert saved(job)[0].startswith("seqscan on")


def test_a_handler_may_submit_and_a_full_queue_costs_it_alone(client, pool, simulator, no_second_call):
    one = ask(client, pool, "submits_two_more")
    assert run_until_empty().ended == {"completed": 3}
    assert len(saved(one)) == 1
    client.tier.max_queued = 1
    client.tier.save()
    two = ask(client, pool, "submits_two_more")
    assert run_until_empty().ended == {"completed": 1}
    call = call_of(two)
    assert (call.state, call.tries, saved(two)) == ("pending", 1, []) and call.error.startswith("QueueFull: ")


def test_a_handler_that_takes_long_holds_up_neither_others_nor_the_drain(client, pool, simulator, settings):
    host_handlers.open_door.clear()
    host_handlers.arrived.clear()
    slow = ask(client, pool, "waits_at_the_door")
    with working(concurrency=8) as worker:
        assert host_handlers.arrived.wait(10)
        quick = [
            ask(client, pool),
            *(queue.submit(client=client, model=pool.name, input="Hi. [[tokens=1]]") for _ in "ab"),
        ]
        for job in quick:
            reaches(job, "completed")
        assert Job.objects.get(id=slow.id).state == "running", "its end is its handler's transaction"
        beat_at = worker._heartbeat.beat_at
        eventually(lambda: _is_above(worker._heartbeat.beat_at, beat_at))
    # The block's end drains, and a second signal waits for no handler: the job is settled without it.
    assert Job.objects.get(id=slow.id).state == "completed" and worker.report.ended == {"completed": 4}
    assert (saved(slow), call_of(slow).state) == ([], "pending")
    host_handlers.open_door.set()


def _is_above(number, bound):
    assert number > bound


def test_threads_are_bounded_and_a_settle_waits_for_one_no_longer_than_its_bound(
    client, pool, simulator, monkeypatch, no_second_call
):
    monkeypatch.setattr(host_threads, "AT_ONCE", 1)
    monkeypatch.setattr(host_calls, "ROOM_WAIT_S", 0.1)
    monkeypatch.setattr(host_calls, "SETTLE_S_MAX", 0.5)
    host_handlers.open_door.clear()
    stuck = [ask(client, pool, "waits_at_the_door") for _ in range(3)]
    assert run_until_empty(concurrency=4).ended == {"completed": 3}
    assert Group.objects.count() == 0
    assert [call_of(job).state for job in stuck] == ["pending"] * 3
    alive = [thread for thread in threading.enumerate() if thread.name == "llmjobs handler"]
    assert len(alive) == 1
    host_handlers.open_door.set()
    alive[0].join(10)
    assert Group.objects.count() == 0, "its transaction had been ended"


def test_near_the_end_of_its_time_a_job_is_settled_without_its_handler(
    client, pool, simulator, settings, no_second_call
):
    """Who holds it longer is taken for lost, and its answer with it."""
    settings.LLMJOBS_RECLAIM_GRACE_S = 0
    job = ask(client, pool, timeout_s=2)
    assert run_until_empty().ended == {"completed": 1}
    assert (saved(job), call_of(job).state, call_of(job).tries) == ([], "pending", 0)


def test_a_cancel_of_what_runs_is_told(client, pool, simulator, no_second_call):
    job = ask(client, pool, words="Hello. [[tokens=400]] [[tokens_per_s=40]]")
    with working():
        reaches(job, "running")
        queue.cancel([job.id])
        reaches(job, "cancelled")
    assert saved(job)[0].startswith("cancelled")


def test_a_worker_calls_what_is_due_until_it_succeeds(client, pool, simulator, settings):
    settings.LLMJOBS_SWEEP_EVERY_S = 0.1
    job = ask(client, pool, "raises")
    with working(Worker(Options())):
        eventually(lambda: _is_above(HandlerCall.objects.filter(tries__gt=2).count(), 0))
        HandlerCall.objects.update(handler=f"{HERE}.save")
        eventually(lambda: _is_above(len(saved(job)), 0))
        eventually(lambda: _is_above(HandlerCall.objects.filter(state="done").count(), 0))
    assert len(saved(job)) == 1 and saved(job)[0].startswith("completed")


def test_a_worker_killed_in_the_handler_leaves_neither_or_both(client, pool, simulator, tmp_path):
    """SIGKILL between the handler's write and the commit: another settles from the log, and calls it once more."""
    job = ask(client, pool, "kills_its_process_once")
    mark = str(tmp_path / "mark")
    with worker_process(HANDLER_MARK=mark) as worker:
        assert worker.ended() == -signal.SIGKILL
    assert Path(mark).exists()
    assert (Job.objects.get().state, saved(job), HandlerCall.objects.count()) == ("running", [], 0)
    WorkerRow.objects.update(
        heartbeat_at=timezone.now() - timedelta(seconds=60)
    )  # so long ago, for all that anybody knows
    with worker_process(HANDLER_MARK=mark):
        reaches(job, "completed", within_s=30)
        eventually(lambda: _is_above(HandlerCall.objects.filter(state="done").count(), 0), 20)
    assert len(saved(job)) == 1 and len(simulator.ledger()) == 1
