"""Races and crash points that no other file of this folder has: a worker that freezes, a server with other defaults.

Each test stops one party at its worst moment and looks at what is left for the others.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import maintenance, queue
from llmjobs.database import connect_async
from llmjobs.folding import SHARD
from llmjobs.models import Client, HandlerCall, Job, JobRequest, Model, WebhookDelivery, Worker
from llmjobs.sql import load
from llmjobs.states import State
from tests.concurrency.threads import started_and_waiting
from tests.hands import Hand, hands, submit
from tests.helpers import eventually
from tests.properties.ground import check_counts, check_identity

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_worker_that_freezes_in_its_claim_leaves_nothing_locked(client: Client, pool: Model) -> None:
    """Begin to commit are on their way together: Postgres ends the claim without the worker, and nobody waits."""
    submit(client, pool, 5)
    with hands(3) as [holder, frozen, other]:
        for _ in range(3):  # once its statements are prepared, all that it sends fits into the socket
            frozen.claim(pool)
        holder.run(holder.connection.execute("begin"))
        holder.run(holder.connection.execute("select from llmjobs_turnstile for update"))
        claiming = frozen._loop.create_task(
            queue.claim(frozen.connection, worker=frozen.worker, pool_id=pool.pk, count=1)
        )

        def is_waiting() -> None:
            for _ in range(100):  # its loop turns here, and from then on stands still
                frozen.run(asyncio.sleep(0))
            assert _waits(frozen), "it does not wait for the turnstile yet"

        eventually(is_waiting)
        eventually(is_waiting)  # now that it waits, all that it can send has been sent
        holder.run(holder.connection.execute("commit"))

        def has_it() -> None:
            assert not _says(frozen).startswith(load("lock")[:60]), "it does not have the turnstile yet"

        eventually(has_it)
        assert len(other.claim(pool)) == 1, "who comes next is not held up"
        assert Job.objects.filter(worker_id=frozen.worker, state=State.RUNNING).count() == 4
        assert len(frozen.run(claiming).jobs) == 1, "once it goes on, it hears what it has"


def _waits(hand: Hand) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("select cardinality(pg_blocking_pids(%s)) > 0", [hand.connection.info.backend_pid])
        return bool(cursor.fetchone()[0])


def _says(hand: Hand) -> str:
    """What the server has last begun for it."""
    with connection.cursor() as cursor:
        cursor.execute("select query from pg_stat_activity where pid = %s", [hand.connection.info.backend_pid])
        return str(cursor.fetchone()[0])


def test_workers_read_committed_whatever_the_server_s_default(client: Client, pool: Model) -> None:
    """In REPEATABLE READ a claim would decide by the turns from before its wait."""
    submit(client, pool, 4)
    with hands(2) as [one, two]:
        two.run(two.connection.close())
        two.connection = two.run(connect_async())  # as workers open theirs
        two.run(two.connection.execute("set default_transaction_isolation = 'repeatable read'"))
        one.claim(pool)
        one.run(one.connection.execute("begin"))
        one.run(one.connection.execute("select from llmjobs_turnstile for update"))
        second = started_and_waiting(two.claim, pool, backend=two.connection.info.backend_pid)
        first = one.claim_once(pool).jobs  # in that transaction, which it commits
        claimed = second()
        assert first and claimed and {job.id for job in first}.isdisjoint({job.id for job in claimed})
        one.run(one.connection.execute("begin"))
        one.run(
            one.connection.execute("update llmjobs_job set cancel_requested_at = now() where id = %s", [claimed[0].id])
        )
        assert two.release(claimed[0]) == {claimed[0].id: queue.BUSY}
        one.run(one.connection.execute("commit"))
        assert two.release(claimed[0]) == {claimed[0].id: "cancelled"}
        one.fold()
    check_counts()
    check_identity()


ROADS = ("settle", "give up", "release", "cancel", "cancel of a running one", "expire", "claim", "reclaim")


@pytest.mark.parametrize("road", ROADS)
def test_by_whatever_road_a_job_ends_its_outbox_is_of_the_same_transaction(client, pool, road, settings):
    """Else a crash between the two ends a job of which nobody is ever told."""
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    [job] = submit(client, pool, webhook_url="https://example.org/hook", max_attempts=1)
    Job.objects.update(has_handler=True)
    JobRequest.objects.update(on_settled="host.handlers.save")
    with hands(2) as [hand, other]:
        _end(road, job, hand, other)
    ended = Job.objects.get()
    assert ended.finished_at is not None
    [delivery], [call] = WebhookDelivery.objects.all(), HandlerCall.objects.all()
    assert (delivery.type, delivery.epoch, delivery.url) == (
        f"job.{ended.state}", ended.epoch, "https://example.org/hook",
    )  # fmt: skip
    assert (call.handler, call.epoch) == ("host.handlers.save", ended.epoch)
    assert _transaction("job") == _transaction("webhookdelivery") == _transaction("handlercall")
    Job.objects.update(priority=0)
    assert (WebhookDelivery.objects.count(), HandlerCall.objects.count()) == (1, 1), "an edit is no end"


def _end(road: str, job: Job, hand: Hand, other: Hand) -> None:
    pool = job.pool
    if road in ("expire", "claim"):
        Job.objects.update(expires_at=timezone.now())
    elif road != "cancel":
        [claimed] = hand.claim(pool)
    match road:
        case "settle":
            hand.settle(claimed)
        case "give up":
            hand.settle(claimed, state=State.DEAD)
        case "release":
            queue.cancel([job.pk])
            hand.release(claimed)
        case "cancel":
            queue.cancel([job.pk])
        case "cancel of a running one":
            queue.cancel([job.pk])
            assert not WebhookDelivery.objects.exists() and not HandlerCall.objects.exists(), "it has not ended yet"
            hand.settle(claimed, state=State.CANCELLED)
        case "expire":
            hand.expire()
        case "claim":
            assert hand.claim(pool) == []
        case "reclaim":
            Worker.objects.filter(id=hand.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
            other.reclaim()


def _transaction(table: str) -> str:
    """Which one wrote its only row."""
    with connection.cursor() as cursor:
        cursor.execute(f"select xmin::text from llmjobs_{table}")  # noqa: S608 our own names
        [[number]] = cursor.fetchall()
    return str(number)


def test_on_the_way_back_to_the_queue_nobody_is_told(client: Client, pool: Model) -> None:
    [job] = submit(client, pool, webhook_url="https://example.org/hook")
    with hands(1) as [hand]:
        hand.settle(*hand.claim(pool), state=State.SCHEDULED)
        hand.stage()
        hand.release(*hand.claim(pool))
    assert not WebhookDelivery.objects.filter(job=job).exists()


def test_who_freezes_in_the_middle_of_a_pipeline_is_thrown_out_and_others_claim(
    client: Client, pool: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres waits for the rest of a claim, holds the turnstile, and counts the session as active."""
    monkeypatch.setattr(maintenance, "FROZEN_S", 0.3)
    submit(client, pool)
    with hands(2) as [frozen, other]:

        async def half_a_claim() -> None:
            pipeline = frozen.connection.pipeline()
            await pipeline.__aenter__()
            await frozen.connection.execute("begin")
            await frozen.connection.execute(load("lock"), {"shard": SHARD})
            await frozen.connection.execute(load("sample_is_due"))  # sends what is before it

        frozen.run(half_a_claim())
        assert other.run(maintenance.free_frozen(other.connection)) == [], "it may be slow"
        pid = frozen.connection.info.backend_pid

        def is_thrown_out() -> None:
            assert other.run(maintenance.free_frozen(other.connection)) == [pid]

        eventually(is_thrown_out)
        assert len(other.claim(pool)) == 1
        with suppress(psycopg.Error):
            frozen.run(frozen.connection.close())
