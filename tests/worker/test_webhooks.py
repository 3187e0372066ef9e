"""A worker tells of what ends: while it runs, before it goes, and whoever was killed over it, somebody does."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models.functions import Now

from llmjobs.models import Client, Job, Model, WebhookDelivery
from tests.hands import submit
from tests.helpers import eventually
from tests.webhook_receiver import WebhookReceiver, webhook_receiver
from tests.worker.running import run_until_empty, working
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def receiver(settings: Any) -> Iterator[WebhookReceiver]:
    settings.LLMJOBS_WEBHOOK_ALLOW_PRIVATE = True
    with webhook_receiver() as receiver:
        yield receiver


def ask(client: Client, pool: Model, url: str, count: int = 1) -> list[Job]:
    said = {"messages": [{"role": "user", "content": "Hello. [[tokens=2]]"}]}
    return submit(client, pool, count, body=said, webhook_url=url)


def states() -> list[str]:
    return sorted(WebhookDelivery.objects.values_list("state", flat=True))


def hears(receiver: WebhookReceiver, count: int) -> None:
    def look() -> None:
        assert len(receiver.heard) == count, len(receiver.heard)

    eventually(look, 20)


def test_a_worker_tells_of_what_ends_while_it_runs(client, pool, receiver):
    with working():
        jobs = ask(client, pool, receiver.url(), 5)
        hears(receiver, 5)
        eventually(lambda: _are(["delivered"] * 5))
    assert {heard.event["data"]["id"] for heard in receiver.heard} == {str(job.public_id) for job in jobs}
    assert {heard.event["data"]["status"] for heard in receiver.heard} == {"completed"}


def _are(expected: list[str]) -> None:
    assert states() == expected, states()


def test_who_ends_by_itself_tells_of_its_jobs_first(client, pool, receiver):
    ask(client, pool, receiver.url(), 12)
    ask(client, pool, receiver.url("/status/500"), 2)
    run_until_empty()
    assert states() == ["delivered"] * 12 + ["pending"] * 2
    assert len(receiver.heard) == 14, "what fails is tried once, and left to the next worker"


def test_a_drain_lets_end_what_is_being_sent_and_takes_no_more(client, pool, receiver, settings):
    settings.LLMJOBS_WEBHOOK_PER_RECEIVER = 1
    with working() as worker:
        ask(client, pool, receiver.url("/hang"), 2)
        hears(receiver, 1)
        worker._loop.call_soon_threadsafe(worker.stop)
        eventually(lambda: _is_over(worker))
        receiver.released.set()
        eventually(lambda: _are(["delivered", "pending"]))
    assert len(receiver.heard) == 1
    assert WebhookDelivery.objects.get(state="pending").tries == 0


def _is_over(worker: Any) -> None:
    assert worker._deliveries._has_ended.is_set()


def test_the_second_signal_waits_for_no_receiver(client, pool, receiver, settings):
    settings.LLMJOBS_WEBHOOK_TIMEOUT_S = 600
    with working():  # which stops it twice at its end, and fails past 40 s
        ask(client, pool, receiver.url("/hang"))
        hears(receiver, 1)
    assert states() == ["pending"]


def test_a_worker_killed_between_send_and_mark_leaves_it_to_the_next_with_the_same_id(client, pool, receiver):
    [job] = ask(client, pool, receiver.url("/hang"))
    with worker_process(LLMJOBS_WEBHOOK_ALLOW_PRIVATE="true", SIMULATOR_API_KEY="sk-test") as worker:
        hears(receiver, 1)
        worker.kill()
    receiver.released.set()
    assert states() == ["pending"]
    WebhookDelivery.objects.update(next_at=Now())  # as it comes to be after a minute
    run_until_empty()
    assert states() == ["delivered"]
    assert receiver.ids() == {f"msg_{job.public_id}_{Job.objects.get().epoch}": 2}
    assert receiver.heard[0].body == receiver.heard[1].body
    assert all(heard.is_signed_by(client.webhook_secret) for heard in receiver.heard)
