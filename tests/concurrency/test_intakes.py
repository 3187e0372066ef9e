"""Batches at once: the same keys, the same limits, and a key that somebody's open transaction holds."""

import threading

import pytest
from django.db import connection, transaction

from llmjobs.errors import IdempotencyInProgress, QueueFull
from llmjobs.intake import Intake, Taken
from llmjobs.models import Job
from llmjobs.queue import submit
from llmjobs.submissions import parse
from tests.concurrency.threads import together
from tests.factories import make_client, make_model

pytestmark = pytest.mark.django_db(transaction=True)

FIELDS = {"model": "gpt", "messages": [{"role": "user", "content": "x"}]}
COUNT = 300


@pytest.fixture
def client():
    make_model("gpt")
    return make_client("acme", max_queued=100_000, max_queued_tokens=None)


def batch(*keys: str | None):
    return [(parse(FIELDS), key) for key in keys]


def test_the_same_keys_in_opposite_orders_make_each_job_once(client):
    """Each waits for rows of the other, which Postgres calls a deadlock."""
    keys = [f"key-{n}" for n in range(COUNT)]
    orders = [keys, keys[::-1]] * 2
    taken = together([lambda order=order: Intake(client).take(batch(*order)) for order in orders])

    by_key: dict[str, set] = {key: set() for key in keys}
    for order, outcomes in zip(orders, taken, strict=True):
        for key, outcome in zip(order, outcomes, strict=True):
            assert isinstance(outcome, Taken | IdempotencyInProgress)
            if isinstance(outcome, Taken):
                by_key[key].add(outcome.job_id)
    assert all(len(jobs) <= 1 for jobs in by_key.values())
    assert Job.objects.count() == sum(len(jobs) for jobs in by_key.values())
    Intake(client).take(batch(*keys))
    assert Job.objects.count() == COUNT


def test_of_batches_at_once_exactly_as_many_are_taken_as_there_is_room_for(client):
    client.max_queued = 250
    client.save()
    taken = together([lambda: Intake(client).take(batch(*[None] * 100))] * 4)

    outcomes = [type(outcome) for each in taken for outcome in each]
    assert (outcomes.count(Taken), outcomes.count(QueueFull)) == (250, 150)
    assert Job.objects.count() == 250
    for each in taken:
        kinds = [isinstance(outcome, Taken) for outcome in each]
        assert kinds == sorted(kinds, reverse=True), "after a full queue nobody passes"


def test_a_key_that_an_open_transaction_holds_is_told_and_holds_nobody_else_up(client):
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            submit(client=client, idempotency_key="held", **FIELDS)
            is_held.set()
            assert may_end.wait(30)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(30)
    keys = [f"key-{n}" for n in range(99)]
    outcomes = Intake(client).take(batch(*keys[:60], "held", *keys[60:]))
    may_end.set()
    holder.join()

    assert isinstance(outcomes.pop(60), IdempotencyInProgress)
    assert all(isinstance(outcome, Taken) for outcome in outcomes)
    assert Job.objects.count() == 100
    [found] = Intake(client).take(batch("held"))
    assert found.is_replay
