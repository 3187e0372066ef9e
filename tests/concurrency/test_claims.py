"""Many claimers at once: nothing twice, limits and shares exact, and nobody waits for whom it need not."""

import threading
from collections import Counter
from datetime import datetime

import pytest
from django.db import connection, transaction

from llmjobs import queue
from llmjobs.folding import fold
from llmjobs.models import Attempt, Job, Model, Turnstile
from llmjobs.states import State
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client, make_model
from tests.hands import Hand, hands, settlement, submit
from tests.helpers import eventually
from tests.properties.ground import check_counts, check_floors, check_identity, check_turns

pytestmark = pytest.mark.django_db(transaction=True)


def audit(hand: Hand) -> None:
    hand.fold()
    check_counts()
    check_floors()
    check_identity()
    check_turns()


def test_no_job_is_claimed_twice_by_eight_claimers():
    pool = make_model()
    clients = [make_client(f"c{n}", tier=tier) for n, tier in enumerate(("free", "pro", "enterprise") * 2)]
    for client in clients:
        submit(client, pool, 500)

    def drain(hand: Hand) -> list[int]:
        mine: list[int] = []
        while jobs := hand.claim(pool, 16):
            mine += [job.id for job in jobs]
            hand.settle(*jobs)
        return mine

    with hands(8) as claimers:
        claimed = together([lambda hand=hand: drain(hand) for hand in claimers])
        audit(claimers[0])
    ids = [job_id for some in claimed for job_id in some]
    assert len(ids) == len(set(ids)) == 3_000
    assert set(Job.objects.values_list("state", "attempt")) == {(State.COMPLETED, 1)}


@pytest.mark.parametrize(("claimers", "size", "count"), [(1, 1, 630), (4, 4, 1_260)])
def test_shares_of_tiers_are_by_weight_whoever_claims(claimers, size, count):
    pool = make_model()
    for tier in ("free", "pro", "enterprise"):
        submit(make_client(tier, tier=tier, max_queued=count), pool, count)
    left = threading.Semaphore(count // size)

    def work(hand: Hand) -> Counter[str]:
        served: Counter[str] = Counter()
        while left.acquire(blocking=False):
            jobs = hand.claim(pool, size)
            served.update(job.client for job in jobs)
            hand.settle(*jobs, cost=jobs[0].charged)
        return served

    with hands(claimers) as some:
        served = sum(together([lambda hand=hand: work(hand) for hand in some]), Counter())
        audit(some[0])
    shares = {name: served[name] / served.total() * 21 for name in served}
    assert shares == {
        "enterprise": pytest.approx(16, rel=0.05),
        "pro": pytest.approx(4, rel=0.05),
        "free": pytest.approx(1, rel=0.05),
    }


@pytest.mark.parametrize("limited", ["client", "model", "tier"])
def test_a_limit_of_running_jobs_is_exact_with_eight_claimers(limited):
    pool = make_model(max_running=5 if limited == "model" else None)
    client = make_client("c", tier="pro", max_running=5 if limited == "client" else None)
    if limited == "tier":
        type(client.tier).objects.filter(pk=client.tier_id).update(max_running=5)
    submit(client, pool, 300)

    def work(hand: Hand) -> None:
        """Holds what it claimed until it has claimed again."""
        while Job.objects.exclude(state=State.COMPLETED).exists():
            claimed = hand.claim(pool, 2)
            more = hand.claim(pool, 2)
            hand.settle(*claimed, *more)

    with hands(8) as claimers:
        together([lambda hand=hand: work(hand) for hand in claimers])
        audit(claimers[0])
    assert most_at_once() == 5


def most_at_once() -> int:
    """By the ledger: how many attempts were open at the same time."""
    changes = []
    for claimed_at, ended_at in Attempt.objects.values_list("claimed_at", "ended_at"):
        changes += [(claimed_at, 1), (ended_at, -1)]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def test_a_claim_waits_for_the_turnstile_and_then_reads_the_newest_turn(client, pool):
    """Locked in a statement of its own: the snapshot of the claim is taken after the wait."""
    submit(client, pool, 4)
    with hands(2) as [one, two]:
        one.claim(pool)
        one.run(one.connection.execute("begin"))
        one.run(one.connection.execute("select from llmjobs_turnstile for update"))
        second = started_and_waiting(two.claim, pool, backend=two.connection.info.backend_pid)
        first = one.claim_once(pool).jobs  # in that transaction, which it commits
        third = second()
        assert {job.id for job in first}.isdisjoint({job.id for job in third}) and first and third
        audit(one)


def test_the_clock_of_a_claim_is_read_after_its_wait(client, pool):
    """A deadline that passed while the claim waited for the turnstile has passed, and a start is when it starts."""
    with hands(2) as [holder, waiting]:
        submit(client, pool)
        holder.claim(pool)  # flow and lane are made, so that the claim that waits is the one that starts jobs
        late, fine = submit(client, pool, expires_in_s=0.4)[0], submit(client, pool)[0]
        holder.run(holder.connection.execute("begin"))
        holder.run(holder.connection.execute("select from llmjobs_turnstile for update"))
        claimed = started_and_waiting(waiting.claim, pool, 2, backend=waiting.connection.info.backend_pid)

        def is_late() -> None:
            assert late.expires_at < now(), "its deadline has not passed yet"

        eventually(is_late)
        released_at = now()
        holder.run(holder.connection.execute("commit"))
        assert [job.id for job in claimed()] == [fine.id]
    assert Job.objects.get(id=late.id).state == State.EXPIRED
    assert Job.objects.get(id=fine.id).started_at >= released_at
    assert Attempt.objects.get(job_id=fine.id).claimed_at >= released_at


def now() -> datetime:
    """Of the database."""
    with connection.cursor() as cursor:
        cursor.execute("select clock_timestamp()")
        return cursor.fetchone()[0]


def test_an_admin_form_left_open_blocks_no_claim_and_no_submit(client, pool):
    """Somebody edits client, tier, model and provider, and goes to lunch."""
    submit(client, pool)
    with hands(1) as [hand], transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("set local lock_timeout = '5s'")
            for table in ("client", "tier", "model", "provider"):
                cursor.execute(f"select from llmjobs_{table} for no key update")
        together([lambda: submit(client, pool)])
        assert len(hand.claim(pool, 2)) == 2


def test_an_open_transaction_of_a_submitter_hides_and_blocks_nothing(client, pool):
    """It may stay open for minutes: neither its client's other jobs nor anybody else's wait."""
    other = make_client("other", tier="enterprise")
    with hands(1) as [hand], transaction.atomic():
        submit(client, pool, priority="low")
        [later] = together([lambda: submit(client, pool, priority="low")[0]])
        [others] = together([lambda: submit(other, pool, priority="low")[0]])
        assert {job.id for job in hand.claim(pool, 4)} == {later.id, others.id}


def test_a_job_of_a_long_transaction_keeps_its_place_and_is_found(client, pool):
    with hands(1) as [hand]:
        with transaction.atomic():
            [early] = submit(client, pool)
            together([lambda: submit(client, pool, 5)])
            assert len(hand.claim(pool, 2)) == 2
        assert hand.claim(pool)[0].id == early.id, "the cursor of its lane goes back to it"


def test_two_submitters_make_the_same_lane_at_once_and_none_waits(pool):
    client = make_client("new", tier="enterprise")
    with transaction.atomic():
        [mine] = submit(client, pool)
        [theirs] = together([lambda: submit(client, pool)[0]])  # would wait for ever on a unique index
        with hands(1) as [hand]:
            assert [job.id for job in hand.claim(pool, 4)] == [theirs.id]
    with hands(1) as [hand]:
        assert [job.id for job in hand.claim(pool, 4)] == [mine.id]
        audit(hand)


def test_models_made_in_an_open_transaction_do_not_stop_the_claims(client, pool):
    """A model refers to its shard's turnstile, which claims lock."""
    submit(client, pool)
    with hands(1) as [hand], transaction.atomic():
        Model.objects.create(name="new", provider=pool.provider)
        with connection.cursor() as cursor:
            cursor.execute("set constraints all immediate")  # else its reference is looked up at the commit
        assert len(hand.claim(pool)) == 1


def test_a_worker_frozen_at_the_turnstile_is_thrown_out(client, pool):
    """Its own timeouts free everybody else, ten seconds after."""
    submit(client, pool)
    with hands(1) as [hand]:

        async def settings() -> tuple[str, str, str | None]:
            async with hand.connection.transaction():
                await fold(hand.connection, is_sweep=False)
                cursor = await hand.connection.execute(
                    "select current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'), "
                    "current_setting('transaction_timeout', true)"  # since Postgres 17: half a pipeline is not idle
                )
                return await cursor.fetchone()

        assert hand.run(settings()) in (("10s", "10s", "12s"), ("10s", "10s", None))
        outside = hand.run(hand.run(hand.connection.execute("show idle_in_transaction_session_timeout")).fetchone())
        assert outside == ("0",), "the settings end with the transaction"
    assert Turnstile.objects.count() == 1


def test_claims_settles_cancels_and_duties_meet_and_nothing_is_lost_or_doubled(client, pool, settings):
    """All verbs at once on the same jobs, in opposite orders: no deadlock, and the counts are exact afterwards."""
    settings.LLMJOBS_RETRY_MIN_PER_S = 100_000  # no budget holds a retry back
    ids = [job.id for job in submit(client, pool, 600)]
    ends = [State.COMPLETED, State.SCHEDULED, State.QUEUED, State.DEAD]

    def work(hand: Hand, turn: int) -> None:
        for _ in range(60):
            claimed = hand.claim(pool, 8)
            settlements = [settlement(job, ends[(job.id + turn) % 4], delay_s=0.0) for job in claimed]
            hand.settle_at_last(settlements[:: 1 if turn % 2 else -1])

    def cancel(step: int) -> None:
        for start in range(0, 300, 20):
            queue.cancel(ids[start : start + 30][::step])

    def requeue() -> None:
        for _ in range(5):
            queue.requeue(ids[:300])
            queue.requeue(ids[::-1])

    def duties(hand: Hand) -> None:
        for _ in range(20):
            hand.stage()
            hand.expire()
            hand.sweep()

    with hands(5) as [one, two, three, four, five]:
        together(
            [
                lambda: work(one, 1), lambda: work(two, 2), lambda: work(three, 3), lambda: cancel(1),
                lambda: cancel(-1), lambda: duties(four), lambda: duties(five), requeue,
            ]
        )  # fmt: skip
        audit(one)
        while one.stage():
            pass
        while claimed := one.claim(pool, 64):
            one.settle(*claimed)
        audit(one)
    left = set(Job.objects.values_list("state", flat=True))
    assert left <= {State.COMPLETED, State.DEAD, State.CANCELLED}
    assert Attempt.objects.filter(outcome=None).count() == 0, "every attempt in the ledger is closed"
