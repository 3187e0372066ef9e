"""Limits under concurrent submits: exact, and nobody waits for a transaction that is open."""

import random
import threading
import time
from contextlib import suppress

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from llmjobs import counts, limits
from llmjobs.database import dsn
from llmjobs.errors import QueueFull
from llmjobs.models import Client, Job, JobCountChange
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client
from tests.hands import hands, submit
from tests.postgres.counting import differences, pass_time

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 16


def submit_until_full(client, pool, *, tries: int, size: int = 1) -> tuple[int, float]:
    """How many were taken, and the longest that one took, in seconds."""
    taken, longest_s = 0, 0.0
    for _ in range(tries):
        began_at = time.monotonic()
        with suppress(QueueFull):
            taken += len(submit(client, pool, size))
        longest_s = max(longest_s, time.monotonic() - began_at)
    return taken, longest_s


def test_sixteen_at_once_fill_a_queue_exactly_while_another_transaction_is_open(client, pool):
    """Nobody waits for the open one, which is refused at its commit: it would be the fifty-first."""
    Client.objects.filter(id=client.id).update(max_queued=50)
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        submit(client, pool)
        results = together([lambda: submit_until_full(client, pool, tries=8)] * THREADS)
        assert sum(taken for taken, _ in results) == 50
        assert max(longest_s for _, longest_s in results) < 30
    assert caught.value.__cause__.sqlstate == limits.SQLSTATE
    assert Job.objects.count() == 50 and differences() == []


def test_room_that_claims_make_is_filled_exactly_while_all_is_counted(client, pool):
    """Submits, claims and counts at once: never more than the limit wait, and none is lost from the counts."""
    Client.objects.filter(id=client.id).update(max_queued=20)
    most = []

    def look():
        for _ in range(40):
            most.append(Job.objects.filter(state="queued").count())
            pass_time(3)
            counts.help_count(least=0)
        return 0, 0.0

    with hands(2) as workers:

        def work(hand):
            return sum(len(hand.claim(pool, random.randint(1, 4))) for _ in range(25)), 0.0

        results = together(
            [lambda: submit_until_full(client, pool, tries=25, size=2)] * 8
            + [lambda hand=hand: work(hand) for hand in workers]
            + [look, look]
        )
    taken, claimed = sum(n for n, _ in results[:8]), sum(n for n, _ in results[8:10])
    assert taken == Job.objects.count() and claimed == Job.objects.filter(state="running").count() > 0
    assert max(most) <= 20
    assert differences() == []
    submit_until_full(client, pool, tries=20)
    assert Job.objects.filter(state="queued").count() == 20


def test_two_that_commit_jobs_of_the_same_clients_in_opposite_order_do_not_deadlock(pool):
    clients = [make_client(f"client-{n}") for n in range(4)]

    def commit(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(10):
            with transaction.atomic():
                for client in order.sample(clients, len(clients)):
                    submit(client, pool)

    together([lambda seed=seed: commit(seed) for seed in range(8)])
    assert Job.objects.count() == 8 * 10 * 4 and differences() == []


def test_a_commit_locks_its_clients_in_the_order_of_their_ids(pool):
    """While it waits for the first it does not hold the second."""
    first, second = make_client("first"), make_client("second")

    def commit_both() -> None:
        with transaction.atomic():
            submit(second, pool)
            submit(first, pool)

    with psycopg.connect(**dsn()) as holder:
        with holder.transaction():
            _lock(holder, first)
            done = started_and_waiting(commit_both)
            with psycopg.connect(**dsn()) as third, third.transaction():
                assert _try_lock(third, second)
        done()
    assert Job.objects.count() == 2


def test_one_client_s_commit_does_not_wait_for_another_client_s(client, pool):
    with psycopg.connect(**dsn()) as holder, holder.transaction():
        _lock(holder, make_client("other"))
        together([lambda: submit(client, pool)])
    assert Job.objects.count() == 1


def test_the_whole_backlog_stays_within_a_hundredth_of_its_bound(pool, settings):
    """Bulk submits of many clients at once, none of them near a limit of its own, while all is counted now and then."""
    settings.LLMJOBS_BACKLOG_MAX = 3_000
    clients = [make_client(f"client-{n}", max_queued=10_000) for n in range(8)]
    open_ones = threading.Semaphore(8)

    def fill(client) -> int:
        taken = 0
        for _ in range(50):
            with suppress(QueueFull), open_ones:
                taken += len(submit(client, pool, 25))
        return taken

    def count() -> int:
        for _ in range(20):
            for _ in range(8):  # a transaction knows how long it was open: no time passes unnoticed within one
                open_ones.acquire()
            pass_time(3)
            open_ones.release(8)
            counts.help_count(least=0)
        return 0

    together([lambda client=client: fill(client) for client in clients] + [count])
    assert 3_000 * 0.99 <= Job.objects.count() <= 3_000 * 1.01
    assert differences() == []


def test_close_to_the_bound_of_the_backlog_one_commit_comes_after_the_other(pool, settings):
    """Whose client is another's: each sees what the one before it brought."""
    settings.LLMJOBS_BACKLOG_MAX = 1
    clients = [make_client("first"), make_client("second")]

    def commit(client) -> int:
        with suppress(QueueFull):
            return len(submit(client, pool))
        return 0

    with psycopg.connect(**dsn()) as holder:
        with holder.transaction():
            holder.execute("select pg_advisory_xact_lock(hashtext('llmjobs.backlog'), 0)")
            commits = [started_and_waiting(commit, client) for client in clients]
            assert not Job.objects.exists(), "it did not wait"
        assert sum(done() for done in commits) == 1 == Job.objects.count()


def test_far_from_the_bound_of_the_backlog_nobody_waits(client, pool):
    with psycopg.connect(**dsn()) as holder, holder.transaction():
        holder.execute("select pg_advisory_xact_lock(hashtext('llmjobs.backlog'), 0)")
        assert together([lambda: len(submit(client, pool))]) == [1]


def test_counting_at_once_with_submits_loses_nothing(client, pool):
    Client.objects.filter(id=client.id).update(max_queued=None)
    client.tier.max_queued = None
    client.tier.save()

    def submits() -> None:
        for n in range(30):
            with transaction.atomic():
                submit(client, pool, 2)
                if n % 5 == 0:
                    transaction.set_rollback(True)

    def count() -> None:
        for _ in range(60):
            pass_time(1)
            counts.help_count(least=0)

    together([submits] * 6 + [count] * 2)
    assert differences() == []
    pass_time(11)
    while counts.help_count(least=0):
        pass
    assert JobCountChange.objects.count() == 0 and differences() == []


def _lock(conn, client) -> None:
    conn.execute("select pg_advisory_xact_lock(hashtext('llmjobs.limits'), %s)", [client.id])


def _try_lock(conn, client) -> bool:
    found = conn.execute("select pg_try_advisory_xact_lock(hashtext('llmjobs.limits'), %s)", [client.id])
    return found.fetchone()[0]


def test_in_repeatable_read_what_came_since_the_snapshot_is_not_seen(client, pool):
    """As the migration says: a host that asks for this isolation gets counts of its snapshot."""
    Client.objects.filter(id=client.id).update(max_queued=1)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("set transaction isolation level repeatable read")
            cursor.execute("select 1 from llmjobs_job")
        together([lambda: submit(client, pool)])
        submit(client, pool)
    assert Job.objects.count() == 2
