"""Budgets under concurrent submits: exact, and nobody waits for a transaction that is open."""

import time
from contextlib import suppress
from decimal import Decimal

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from llmjobs import counts, limits
from llmjobs.database import dsn
from llmjobs.errors import InsufficientQuota, RateLimitExceeded
from llmjobs.models import Client, Job
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client, make_model
from tests.hands import hands, submit
from tests.postgres.counting import differences, pass_time, spending_differences

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 16
ONE = {"body": {"input": [1] * 1_000}, "endpoint": "/v1/embeddings"}  # costs a dollar at the model's price


@pytest.fixture
def pool(transactional_db: None):
    return make_model("priced", input_usd_per_mtok=1_000)


def submit_until_refused(client, pool, *, tries: int, **asked) -> tuple[int, float]:
    """How many were taken, and the longest that one took, in seconds."""
    taken, longest_s = 0, 0.0
    for _ in range(tries):
        began_at = time.monotonic()
        with suppress(InsufficientQuota, RateLimitExceeded):
            taken += len(submit(client, pool, **asked))
        longest_s = max(longest_s, time.monotonic() - began_at)
    return taken, longest_s


def test_sixteen_at_once_spend_a_budget_exactly_while_another_transaction_is_open(client, pool):
    """Nobody waits for the open one, which is refused at its commit: it would be the fifty-first."""
    Client.objects.filter(id=client.id).update(monthly_budget_usd=50)
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        submit(client, pool, **ONE)
        results = together([lambda: submit_until_refused(client, pool, tries=8, **ONE)] * THREADS)
        assert sum(taken for taken, _ in results) == 50
        assert max(longest_s for _, longest_s in results) < 5
    assert caught.value.__cause__.sqlstate == limits.SQLSTATE
    assert Job.objects.count() == 50 and differences() == []


def test_what_calls_leave_over_is_spent_exactly_while_all_is_counted(client, pool):
    """Submits, claims, settles for half the estimate and counts at once: never is more than that promised and spent."""
    Client.objects.filter(id=client.id).update(monthly_budget_usd=20)
    most = []

    def look():
        for _ in range(40):
            now = limits.money(client)
            most.append(now.spent_usd + now.reserved_usd)
            pass_time(3)
            counts.help_count(least=0)
        return 0, 0.0

    with hands(2) as workers:

        def work(hand):
            for _ in range(20):
                hand.settle(*hand.claim(pool, 3), cost_usd="0.5")
            return 0, 0.0

        together(
            [lambda: submit_until_refused(client, pool, tries=20, **ONE)] * 8
            + [lambda hand=hand: work(hand) for hand in workers]
            + [look, look]
        )
        assert max(most) <= 20 and differences() == spending_differences() == []
        submit_until_refused(client, pool, tries=20, **ONE)
        while claimed := workers[0].claim(pool, 10):
            workers[0].settle(*claimed, cost_usd="0.5")
            submit_until_refused(client, pool, tries=20, **ONE)
    now = limits.money(client)
    assert Decimal(19) < now.spent_usd <= 20 and now.reserved_usd == 0


def test_of_those_who_will_not_wait_exactly_as_many_are_taken_as_have_room(pool):
    client = make_client("limited", tier="enterprise", rpm=30)
    with transaction.atomic():
        submit(client, pool, when_limited="reject", **ONE)
        results = together(
            [lambda: submit_until_refused(client, pool, tries=4, when_limited="reject", **ONE)] * THREADS
        )
        assert sum(taken for taken, _ in results) == 30
        assert max(longest_s for _, longest_s in results) < 5
        transaction.set_rollback(True)
    assert Job.objects.count() == 30


def test_who_commits_first_takes_the_last_dollar_and_the_other_sees_it(client, pool):
    Client.objects.filter(id=client.id).update(monthly_budget_usd=1)
    with psycopg.connect(**dsn()) as holder:
        with holder.transaction():
            holder.execute("select pg_advisory_xact_lock(hashtext('llmjobs.limits'), %s)", [client.id])
            commits = [started_and_waiting(lambda: submit_until_refused(client, pool, tries=1, **ONE)) for _ in "12"]
            assert not Job.objects.exists(), "it did not wait"
        assert sum(done()[0] for done in commits) == 1 == Job.objects.count()


def test_a_settle_does_not_wait_for_a_submit_that_is_open(client, pool):
    Client.objects.filter(id=client.id).update(monthly_budget_usd=50)
    submit(client, pool, **ONE)
    with hands(1) as [hand]:
        claimed = hand.claim(pool)
        with transaction.atomic():
            submit(client, pool, **ONE)
            with connection.cursor() as cursor:
                cursor.execute("set constraints all immediate")  # it holds the client's lock now
            assert len(hand.settle(*claimed, cost_usd="0.5")) == 1
    assert limits.money(client).spent_usd == Decimal("0.5")
