"""Webhooks on their way: over real sockets to a real receiver, row by row."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from llmjobs import deliveries as module
from llmjobs import queue, webhooks
from llmjobs.database import dsn
from llmjobs.deliveries import LOOK_PAIRS, LOOK_ROWS, Deliveries
from llmjobs.models import Client, Job, JobRequest, JobResult, Model, WebhookDelivery
from llmjobs.sql import load
from tests.factories import make_client
from tests.hands import Hand, submit
from tests.helpers import aeventually
from tests.webhook_receiver import WebhookReceiver, webhook_receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def receiver(settings: Any) -> Iterator[WebhookReceiver]:
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = True
    settings.LLMJOBS_WEBHOOK_TIMEOUT_S = 5
    with webhook_receiver() as receiver:
        yield receiver


@asynccontextmanager
async def connect():
    async with await psycopg.AsyncConnection.connect(**dsn() | {"autocommit": True}) as conn:
        await conn.execute("set lock_timeout = '2s'")
        yield conn


def deliver(hand: Hand) -> None:
    """One worker: what is due now, as far as there is room, to its end."""

    async def delivered() -> None:
        worker = Deliveries(connect)
        try:
            await worker.begin()
            await asyncio.gather(*worker._tasks)
        finally:
            await worker.close()

    hand.run(delivered())


def ended_job(hand: Hand, client: Client, pool: Model, url: str, **details: Any) -> Job:
    [job] = submit(client, pool, webhook_url=url)
    hand.settle(*hand.claim(pool), **details)
    return Job.objects.get(pk=job.pk)


def due(count: int, client: Client, url: str, *, job_id: int = 0, ago_s: float = 60) -> None:
    """Deliveries of one job, or of none."""
    at = timezone.now() - timedelta(seconds=ago_s)
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(job_id=job_id, client=client, epoch=next(EPOCHS), type="job.completed", url=url, next_at=at)
        for _ in range(count)
    )


EPOCHS = itertools.count(100)


def delivery_of(job: Job) -> WebhookDelivery:
    return WebhookDelivery.objects.get(job=job)


def again() -> None:
    WebhookDelivery.objects.filter(state="pending").update(next_at=Now())


def test_an_end_is_told_once_with_the_job_as_the_api_shows_it(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url(), output_text="said", output=json.dumps({"said": "\ud800ü"}))
    deliver(hand)
    deliver(hand)
    [heard] = receiver.heard
    delivery = delivery_of(job)
    assert heard.event == {
        "id": f"msg_{job.public_id}_{job.epoch}", "object": "event", "type": "job.completed",
        "created_at": heard.event["created_at"], "data": heard.event["data"],
    }  # fmt: skip
    told = heard.event["data"]
    assert (told["id"], told["status"], told["output_text"]) == (str(job.public_id), "completed", "said")
    assert told["output"] == {"said": "\ud800ü"} and told["links"]["self"] == f"/api/jobs/{job.public_id}"
    assert heard.event["created_at"].endswith("Z")
    assert heard.headers["webhook-id"] == heard.event["id"]
    assert heard.headers["webhook-signature"].count("v1,") == 1 and heard.is_signed_by(client.webhook_secret)
    assert not heard.is_signed_by(make_client().webhook_secret)
    assert int(heard.headers["webhook-timestamp"]) == int(delivery.tried_at.timestamp()), "the database's clock"
    assert (delivery.state, delivery.status, delivery.tries, delivery.error) == ("delivered", 200, 1, None)
    assert delivery.ended_at and delivery.receiver == "127.0.0.1"


def test_a_rotated_secret_signs_beside_the_new_one_until_its_time_is_over(hand, client, pool, receiver):
    old = client.webhook_secret
    new = webhooks.rotate_secret(client)
    ended_job(hand, client, pool, receiver.url())
    deliver(hand)
    Client.objects.update(old_webhook_secret_until=Now())
    ended_job(hand, client, pool, receiver.url())
    deliver(hand)
    both, one = receiver.heard
    assert both.is_signed_by(old) and both.is_signed_by(new)
    assert one.is_signed_by(new) and not one.is_signed_by(old)


def test_of_two_rotations_the_first_secret_ends(client):
    first, second = client.webhook_secret, webhooks.rotate_secret(client)
    third = webhooks.rotate_secret(client)
    client.refresh_from_db()
    assert (client.webhook_secret, client.old_webhook_secret) == (third, second) and first not in (second, third)
    assert timezone.now() + timedelta(hours=23) < client.old_webhook_secret_until


def test_a_receiver_that_comes_back_gets_what_it_missed(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url("/then/500"))
    deliver(hand)
    delivery = delivery_of(job)
    assert (delivery.state, delivery.status, delivery.error) == ("pending", 500, "HTTP 500: so so")
    wait_s = (delivery.next_at - timezone.now()).total_seconds()
    assert 3 < wait_s <= 10, "half to all of 5 s * 2"
    deliver(hand)
    assert len(receiver.heard) == 1, "not before its time"
    again()
    deliver(hand)
    delivery = delivery_of(job)
    assert (delivery.state, delivery.status, delivery.tries) == ("delivered", 200, 2)
    assert receiver.ids() == {f"msg_{job.public_id}_{job.epoch}": 2}


def test_gone_is_failed_at_once(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url("/status/410"))
    deliver(hand)
    delivery = delivery_of(job)
    assert (delivery.state, delivery.status) == ("failed", 410) and delivery.ended_at


def test_who_asks_for_time_gets_it_within_bounds(hand, client, pool, receiver, settings):
    settings.LLMJOBS_WEBHOOK_BACKOFF_BASE_S = 0.01
    job = ended_job(hand, client, pool, receiver.url("/later"))
    deliver(hand)
    assert 20 < (delivery_of(job).next_at - timezone.now()).total_seconds() <= 30
    settings.LLMJOBS_WEBHOOK_BACKOFF_CAP_S = 7
    again()
    deliver(hand)
    assert 4 < (delivery_of(job).next_at - timezone.now()).total_seconds() <= 7


def test_waits_grow_up_to_the_cap(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url("/status/500"))
    waits = []
    for tries in (0, 3, 6, 40):
        WebhookDelivery.objects.update(tries=tries, next_at=Now())
        deliver(hand)
        waits.append((delivery_of(job).next_at - timezone.now()).total_seconds())
    for wait_s, most_s in zip(waits, (10, 80, 640, 3600), strict=True):
        assert most_s / 2 - 2 < wait_s <= most_s, waits


def test_after_its_time_it_has_failed_and_the_last_try_is_at_its_end(hand, client, pool, receiver, settings):
    settings.LLMJOBS_WEBHOOK_RETRY_FOR_S = 2
    job = ended_job(hand, client, pool, receiver.url("/status/500"))
    deliver(hand)
    delivery = delivery_of(job)
    assert delivery.state == "pending" and delivery.next_at == delivery.retry_until
    WebhookDelivery.objects.update(retry_until=Now(), next_at=Now())
    deliver(hand)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.tries, delivery.error) == ("failed", 2, "HTTP 500: so so")
    again()
    deliver(hand)
    assert len(receiver.heard) == 2


def test_the_time_to_retry_begins_with_the_first_try(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url("/status/500"))
    WebhookDelivery.objects.update(created_at=Now() - timedelta(days=3))
    deliver(hand)
    assert delivery_of(job).retry_until - timezone.now() > timedelta(hours=23)


def test_of_a_job_that_is_gone_nothing_is_told_and_of_one_that_was_erased_no_content(hand, client, pool, receiver):
    gone, erased = (ended_job(hand, client, pool, receiver.url(), output_text="said") for _ in range(2))
    Job.objects.filter(pk=gone.pk)._raw_delete("default")
    JobRequest.objects.filter(job=erased).delete()
    JobResult.objects.filter(job=erased).delete()
    deliver(hand)
    delivery = WebhookDelivery.objects.get(job_id=gone.pk)
    assert (delivery.state, delivery.error) == ("failed", "the job was removed before it could be told of")
    [heard] = receiver.heard
    assert heard.event["type"] == "job.completed" and heard.event["data"]["id"] == str(erased.public_id)
    assert delivery_of(erased).url == "", "it may hold a token"
    assert (heard.event["data"]["output"], heard.event["data"]["output_text"]) == (None, "")


def test_a_job_that_was_requeued_is_told_of_both_ends(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url(), state="dead", error_code="server_error", error_class="unknown")
    queue.requeue([job.pk])
    deliver(hand)
    hand.settle(*hand.claim(pool))
    deliver(hand)
    first, second = receiver.heard
    assert (first.event["type"], first.event["data"]["status"]) == ("job.dead", "queued")
    assert (second.event["type"], second.event["data"]["status"]) == ("job.completed", "completed")
    assert len(receiver.ids()) == 2


def test_a_client_without_a_secret_that_can_sign_is_not_told_unsigned(hand, client, pool, receiver, caplog):
    Client.objects.update(webhook_secret="whsec_not base64!")
    job = ended_job(hand, client, pool, receiver.url())
    deliver(hand)
    assert receiver.heard == []
    assert delivery_of(job).error == "it could not be made: Error" and "not base64" not in caplog.text


def test_a_failure_is_a_line_without_the_url_and_the_receivers_words(hand, client, pool, receiver, caplog):
    job = ended_job(hand, client, pool, receiver.url("/status/500?token=very-secret"))
    deliver(hand)
    [line] = [line for line in caplog.messages if "event=webhook_failed" in line]
    assert (
        line == f"event=webhook_failed job={job.public_id} receiver=127.0.0.1 tries=1 state=pending reason='HTTP 500'"
    )
    assert "very-secret" not in caplog.text and "so so" not in caplog.text


def test_a_worker_that_dies_between_leaves_it_to_another_with_the_same_id(hand, client, pool, receiver, monkeypatch):
    job = ended_job(hand, client, pool, receiver.url())

    async def dies(*args: Any) -> None:
        raise psycopg.OperationalError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Deliveries, "_mark", dies)
        deliver(hand)
    assert delivery_of(job).state == "pending"
    deliver(hand)
    assert len(receiver.heard) == 1, "the other may still be at it"
    again()
    deliver(hand)
    assert receiver.ids() == {f"msg_{job.public_id}_{job.epoch}": 2} and delivery_of(job).state == "delivered"


def test_two_workers_never_send_the_same_try(hand, client, pool, receiver):
    for _ in range(20):
        ended_job(hand, client, pool, receiver.url())

    async def both() -> None:
        workers = [Deliveries(connect) for _ in range(2)]
        for _ in range(10):
            await asyncio.gather(*(worker.begin() for worker in workers))
            await asyncio.gather(*(task for worker in workers for task in worker._tasks))
        for worker in workers:
            await worker.close()

    hand.run(both())
    assert len(receiver.heard) == len(receiver.ids()) == 20


def test_a_try_that_is_late_can_not_call_it_failed(hand, client, pool, receiver):
    """A worker that was frozen wakes up after another has taken it again."""
    job = ended_job(hand, client, pool, receiver.url())
    params = {"clients": [client.pk], "receivers": ["127.0.0.1"], "taken_s": 0, "retry_for_s": 9}

    async def take() -> Any:
        async with connect() as conn:
            [row] = await (await conn.execute(load("take_deliveries"), params)).fetchall()
            return row[9]

    tried_at, _ = hand.run(take()), hand.run(take())
    failed = {
        "id": delivery_of(job).pk, "tried_at": tried_at, "status": 500, "error": "late", "is_final": True,
        "wait_s": None, "base_s": 1, "cap_s": 1,
    }  # fmt: skip

    async def mark() -> int:
        async with connect() as conn:
            return (await conn.execute(load("not_delivered"), failed)).rowcount

    assert hand.run(mark()) == 0
    assert delivery_of(job).state == "pending"


def test_no_receiver_and_no_connection_is_held_above_its_bound(hand, client, pool, receiver, settings):
    settings.LLMJOBS_WEBHOOK_PER_RECEIVER = 3
    for _ in range(8):
        ended_job(hand, client, pool, receiver.url("/hang"))
    held = 0

    @asynccontextmanager
    async def counted():
        nonlocal held
        held += 1
        try:
            async with connect() as conn:
                yield conn
        finally:
            held -= 1

    async def look() -> None:
        worker = Deliveries(counted)
        await worker.begin()
        await aeventually(lambda: _is(receiver.at_once, 3))
        await worker.begin()
        assert (len(worker._tasks), held) == (3, 0)
        receiver.released.set()
        await asyncio.gather(*worker._tasks)
        await worker.close()

    hand.run(look())
    assert receiver.most_at_once == 3


async def _is(found: Any, expected: Any) -> None:
    assert found == expected


def test_a_slow_receiver_with_a_backlog_keeps_nobody_else_waiting(hand, client, pool, receiver):
    slow = receiver.url("/hang", host="localhost")
    job = ended_job(hand, client, pool, slow)
    due(4 * LOOK_ROWS, client, slow, job_id=job.pk)
    for one in (client, make_client("other", tier="enterprise")):
        ended_job(hand, one, pool, receiver.url("/ok"))
    due(4 * LOOK_ROWS, client, slow, job_id=job.pk, ago_s=0)

    async def look() -> None:
        worker = Deliveries(connect)
        for _ in range(3):
            worker._looked_at = 0
            await worker.begin()
        await aeventually(lambda: _has_heard(receiver, 2))
        receiver.released.set()
        await asyncio.gather(*worker._tasks)
        await worker.close()

    hand.run(look())


async def _has_heard(receiver: WebhookReceiver, count: int) -> None:
    assert sum(heard.path == "/ok" for heard in receiver.heard) == count


def test_who_is_due_since_just_now_is_seen_at_once_and_nobody_is_overlooked_for_ever(hand, client):
    """With more receivers waiting than a look goes through."""
    number = 2 * LOOK_PAIRS + LOOK_ROWS
    for host in range(number):
        due(1, client, f"http://host-{host:04}/")
    other = make_client()
    due(1, other, "http://quick/", ago_s=1)

    async def look() -> list[int]:
        worker, known = Deliveries(connect), []
        for _ in range(4):
            await worker._look()
            assert worker._receivers._due[other.pk] == {"quick": None}
            known.append(len(worker._receivers._due[client.pk]))
        await worker.close()
        return known

    known = hand.run(look())
    assert known[0] < number == known[-1]


def test_who_is_next_is_read_from_its_indexes(client):
    """With the statistics of a table that knows one receiver, whose backlog would be walked to find another's."""
    due(3_000, client, "http://slow.example/")
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_webhookdelivery")
    other = make_client()
    due(1, other, "http://quick.example/", ago_s=1)
    params = {"client_id": 0, "receiver": "", "taken_s": 9, "retry_for_s": 9}
    params |= {"clients": [other.pk], "receivers": ["quick.example"]}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(load("pin_reads"))
        for statement in (load("due_receivers", rows=100, pairs=100), load("take_deliveries")):
            cursor.execute(f"explain (analyze, format json) {statement}", params)
            [[[plan]]] = cursor.fetchall()
            scans = list(_scans(plan["Plan"]))
            assert {scan["Node Type"] for scan in scans} <= {"Index Scan", "Index Only Scan"}, scans
            assert sum(scan["Actual Rows"] * scan["Actual Loops"] for scan in scans) <= 210
            assert sum(scan.get("Rows Removed by Filter", 0) for scan in scans) == 0


def _scans(plan: Any) -> Iterator[Any]:
    if plan.get("Relation Name") == "llmjobs_webhookdelivery" and plan["Node Type"] != "ModifyTable":
        yield plan
    for below in plan.get("Plans", []):
        yield from _scans(below)


def test_a_redelivery_is_sent_again_whatever_became_of_it_with_the_same_id(hand, client, pool, receiver):
    job = ended_job(hand, client, pool, receiver.url())
    deliver(hand)
    WebhookDelivery.objects.update(tries=F("tries") + 20)
    assert webhooks.redeliver([delivery_of(job).pk, 999_999]) == [delivery_of(job).pk]
    deliver(hand)
    delivery = delivery_of(job)
    assert receiver.ids() == {f"msg_{job.public_id}_{job.epoch}": 2}
    assert (delivery.state, delivery.tries) == ("delivered", 1)


def test_the_host_stands_in_the_row_and_no_url_breaks_its_transaction(client):
    for url, host in HOSTS.items():
        due(1, client, url)
        assert WebhookDelivery.objects.latest("id").receiver == host


HOSTS = {
    "https://Hooks.Example.ORG/a?b=c": "hooks.example.org",
    "HTTP://h:8080/": "h",
    "http://[::1]:80/x": "[::1]",
    "http://h?x": "h",
    "http://h": "h",
    "ftp://h/": "",
    "http://" + "ü" * 2000: "ü" * 255,
}


def test_postgres_away_for_a_moment_costs_no_delivery(hand, client, pool, receiver, monkeypatch):
    job = ended_job(hand, client, pool, receiver.url())
    failures = iter([True])

    @asynccontextmanager
    async def shaky():
        if next(failures, False):
            raise psycopg.OperationalError("away")
        async with connect() as conn:
            yield conn

    async def run() -> None:
        worker = Deliveries(shaky)
        task = asyncio.create_task(worker.run())
        await aeventually(lambda: _has_heard(receiver, 1))
        await worker.finish(within_s=5, may_begin=lambda: False)
        await task
        await worker.close()

    hand.run(run())
    assert delivery_of(job).state == "delivered"
    assert module.TAKEN_MARGIN_S > 30
