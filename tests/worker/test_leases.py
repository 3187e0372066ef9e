"""What a worker holds, what the table says it holds, and what it does where the two differ."""

import asyncio
import threading
import time
from datetime import timedelta

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import Attempt, Job, Worker
from llmjobs.states import State
from llmjobs.worker import Options
from llmjobs.worker import Worker as RealWorker
from tests.factories import make_worker
from tests.hands import Hand, hands, submit
from tests.helpers import eventually
from tests.worker.running import log_of, reaches, streams, working

pytestmark = pytest.mark.django_db(transaction=True)

SLOW = {"messages": [{"role": "user", "content": "Slowly. [[tokens=400]] [[tokens_per_s=40]]"}]}
QUICK = {"messages": [{"role": "user", "content": "Hello. [[tokens=3]]"}]}


def test_a_claim_whose_commit_was_not_acknowledged_is_handed_back_and_runs(client, pool):
    """The table says that the worker holds a job of which it knows nothing."""
    worker = RealWorker(Options())
    lost = Hand(Worker(id=worker.id))
    [job] = submit(client, pool, body=QUICK)
    lost.claim(pool)
    lost.close()
    with working(worker):
        reaches(job, State.COMPLETED)
    outcomes = list(Attempt.objects.order_by("number").values_list("outcome", "cost"))
    assert [outcome for outcome, _ in outcomes] == ["released", "completed"]
    assert outcomes[0][1] == 0, "nothing was sent, nothing is charged"
    job.refresh_from_db()
    assert (job.failures, job.attempt) == (0, 2)


def test_a_claim_that_failed_does_not_keep_orphans_from_being_handed_back(client, pool, monkeypatch):
    """The acknowledgement is lost with the connection: the same claim that made them."""
    real_claim, is_cut = queue.claim, threading.Event()

    async def cut_off(conn, **arguments):
        claim = await real_claim(conn, **arguments)
        if claim.jobs and not is_cut.is_set():
            is_cut.set()
            monkeypatch.setattr(queue, "claim", real_claim)
            raise psycopg.OperationalError("the connection is lost, after the commit")
        return claim

    monkeypatch.setattr(queue, "claim", cut_off)
    [job] = submit(client, pool, body=QUICK)
    with working():
        reaches(job, State.COMPLETED)
    assert list(Attempt.objects.order_by("number").values_list("outcome", flat=True)) == ["released", "completed"]


def test_a_job_that_was_taken_away_is_dropped_by_its_worker(client, pool, simulator):
    """Reclaimed while the call went on: the worker aborts it, writes nothing, and counts the lost lease."""
    [job] = submit(client, pool, body=SLOW)
    with working(concurrency=1) as worker:
        streams(job)
        with connection.cursor() as cursor:  # as a reclaim would leave it, and so that nobody claims it again
            cursor.execute(
                "update llmjobs_job set state = 'dead', worker_id = null, epoch = epoch + 1, finished_at = now() "
                "where id = %s",
                [job.id],
            )
        seqs = set(job.events.values_list("seq", flat=True))

        def was_aborted():
            [call] = simulator.ledger()
            assert call["outcome"] == "client_disconnected"

        eventually(was_aborted)
        eventually(lambda: _lost(worker, 1))
        after = set(job.events.values_list("seq", flat=True))
    assert all(seq >> 20 <= 2 for seq in after), "nothing of a later life"
    assert len(after) - len(seqs) <= 5
    assert Attempt.objects.get().outcome is None


def _lost(worker, count):
    assert Worker.objects.get(id=worker.id).lease_lost_count == count


def test_a_worker_whose_row_was_removed_drains(client, pool):
    worker = RealWorker(Options())
    with working(worker):
        Worker.objects.filter(id=worker.id).delete()
        eventually(lambda: _stopped(worker))


def test_a_worker_that_is_asked_to_drain_finishes_what_it_runs_and_stops(client, pool):
    worker = RealWorker(Options())
    [job] = submit(
        client, pool, body={"messages": [{"role": "user", "content": "Some. [[tokens=30]] [[tokens_per_s=60]]"}]}
    )
    with working(worker):
        streams(job)
        Worker.objects.filter(id=worker.id).update(is_draining=True)
        eventually(lambda: _stopped(worker))
        reaches(job, State.COMPLETED)
        [later] = submit(client, pool, body=QUICK)
    later.refresh_from_db()
    assert later.state == State.QUEUED


def _stopped(worker):
    assert worker._stop.is_set()


def test_a_second_signal_while_a_claim_is_on_its_way_hands_back_what_it_brings(client, pool, simulator):
    """The claim waits for the turnstile; it commits after both signals."""
    with hands(1) as [holder]:
        holder.run(holder.connection.execute("begin"))
        holder.run(holder.connection.execute("select from llmjobs_turnstile for update"))
        [job] = submit(client, pool, body=SLOW)
        worker = RealWorker(Options())
        with working(worker):
            eventually(lambda: _waiting(1))
            for _ in range(2):
                worker._loop.call_soon_threadsafe(worker.stop)
            holder.run(holder.connection.execute("commit"))
    job.refresh_from_db()
    assert job.state == State.QUEUED and job.failures == 0
    assert [call["outcome"] for call in simulator.ledger()] in ([], ["client_disconnected"])


def _waiting(count):
    with connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        assert cursor.fetchone()[0] >= count, "no claim waits"


def test_a_cancel_is_noticed_though_its_notice_was_lost(client, pool, simulator):
    """The heartbeat brings it."""
    [job] = submit(client, pool, body=SLOW)
    with working():
        streams(job)
        with connection.cursor() as cursor:  # a cancel without its NOTIFY
            cursor.execute("update llmjobs_job set cancel_requested_at = now() where id = %s", [job.id])
        reaches(job, State.CANCELLED)
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert job.result.output_text and ("done", "cancelled") in log_of(job)
    assert Attempt.objects.get().output_tokens > 0


def test_a_cancel_keeps_what_was_said_and_what_it_cost(client, pool, simulator):
    [job] = submit(client, pool, body=SLOW)
    with working():
        streams(job)
        queue.cancel([job.id])
        reaches(job, State.CANCELLED)
    job = Job.objects.select_related("result").get(pk=job.pk)
    attempt = Attempt.objects.get()
    assert attempt.outcome == "cancelled"
    assert 0 < attempt.output_tokens <= simulator.ledger()[0]["output_tokens"], "what was on its way did not arrive"
    assert job.result.cost_usd > 0
    assert log_of(job)[-2:] == [("delta", job.result.output_text), ("done", "cancelled")]


def test_a_worker_that_was_cut_off_itself_takes_nobody_for_dead(client, pool, settings):
    """What kept it from beating may have kept all the others. A lease's length later it judges as before."""
    settings.LLMJOBS_LEASE_S = 2
    settings.LLMJOBS_RECLAIM_EVERY_S = 0.1
    other = Hand(make_worker(heartbeat_at=timezone.now() + timedelta(hours=1)))  # until the other is cut off, it lives
    [job] = submit(client, pool, body=SLOW)
    other.claim(pool)
    other.close()
    worker = RealWorker(Options())
    with working(worker):
        hung = threading.Event()
        blocked = asyncio.run_coroutine_threadsafe(_block(hung), worker._loop)
        eventually(lambda: _is_old(worker.id, 1.5))
        Worker.objects.filter(id=other.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        back_at = time.monotonic()
        hung.set()
        blocked.result(5)
        eventually(lambda: _outcome(job, "lost"))
    assert time.monotonic() - back_at > 1.8


async def _block(hung):
    hung.wait(10)


def _is_old(worker_id, age_s):
    assert Worker.objects.get(id=worker_id).heartbeat_at < timezone.now() - timedelta(seconds=age_s)


def _outcome(job, outcome):
    assert Attempt.objects.get(job=job, number=1).outcome == outcome


def test_the_heartbeat_beats_only_while_the_loop_ticks(client, pool, settings):
    """A worker whose loop hangs must not keep its leases."""
    settings.LLMJOBS_LEASE_S = 2
    with working() as worker:
        hung = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_block(hung), worker._loop)
        try:
            eventually(lambda: _is_old(worker.id, 1.5))  # a beat every 0.2 s would keep it younger
        finally:
            hung.set()
        future.result(5)

        def beats_again() -> None:
            assert Worker.objects.get(id=worker.id).heartbeat_at > timezone.now() - timedelta(seconds=1)

        eventually(beats_again)
