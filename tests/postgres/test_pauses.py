"""All claims paused: nothing starts, for no worker, from the next claim on; nothing is lost; all goes on at once."""

import threading
import time

import psycopg
import pytest
from django.db import transaction

from llmjobs import queue
from llmjobs.database import dsn
from llmjobs.events import WORK_CHANNEL
from llmjobs.models import Attempt, ClaimsPause, Client, Job, Model
from llmjobs.pauses import open_pause
from llmjobs.places import places
from llmjobs.states import State
from tests.factories import make_model, make_worker
from tests.hands import Hand, hands, submit

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_is_claimed_while_claims_are_paused_and_all_of_it_afterwards(
    hand: Hand, client: Client, pool: Model
) -> None:
    jobs = submit(client, pool, 5)
    assert len(hand.claim(pool, 2)) == 2
    queue.pause_claims(by="ada", reason="the provider moves")
    jobs += submit(client, pool, 2)
    assert hand.claim(pool, 10) == []
    queue.resume_claims(by="bob")
    assert sorted(job.id for job in hand.claim(pool, 10)) == sorted(job.id for job in jobs[2:])


def test_a_claim_of_a_large_backlog_does_not_go_on_while_claims_are_paused(
    hand: Hand, client: Client, pool: Model
) -> None:
    """Whoever claims "again" at once reads the switch each time."""
    submit(client, pool, 300)
    assert hand.claim_once(pool, 20).jobs
    queue.pause_claims(by="ada")
    after = hand.claim_once(pool, 20)
    assert (after.jobs, after.skipped, after.again) == ([], [], False)


def test_what_runs_is_settled_while_claims_are_paused(hand: Hand, client: Client, pool: Model) -> None:
    submit(client, pool)
    [claimed] = hand.claim(pool)
    queue.pause_claims(by="ada")
    assert hand.settle(claimed) == {claimed.id: State.COMPLETED}


def test_workers_leave_the_pools_alone_while_claims_are_paused(hand: Hand, client: Client, pool: Model) -> None:
    submit(client, pool, 3)
    hand.claim(pool)  # the inbox is folded
    assert hand.ready_pools() == [pool.pk]
    queue.pause_claims(by="ada")
    assert hand.ready_pools() == []
    submit(client, pool)
    assert hand.ready_pools() == [pool.pk], "its news are folded meanwhile"
    hand.claim(pool)
    assert hand.ready_pools() == []


def test_a_pause_says_who_when_and_why_and_there_is_one_at_a_time(hand: Hand) -> None:
    first = queue.pause_claims(by="ada", reason="maintenance")
    assert first is not None
    assert queue.pause_claims(by="bob", reason="me too") is None
    assert open_pause() == first
    ended = queue.resume_claims(by="bob")
    assert ended is not None
    assert (ended.by, ended.reason, ended.resumed_by) == ("ada", "maintenance", "bob")
    assert ended.resumed_at is not None
    assert ended.since <= ended.resumed_at
    assert queue.resume_claims(by="bob") is None
    assert queue.pause_claims(by="bob") is not None, "and another one"
    assert ClaimsPause.objects.count() == 2


def test_a_waiting_job_says_that_claims_are_paused(hand: Hand, client: Client, pool: Model) -> None:
    make_worker()
    [job] = submit(client, pool)
    assert places([job])[job.id].blocked_by is None
    queue.pause_claims(by="ada")
    place = places([job])[job.id]
    assert (place.position, place.blocked_by, place.eta_s) == (0, "claims_paused", None)
    queue.resume_claims(by="ada")
    assert places([job])[job.id].blocked_by is None


def test_workers_are_woken_for_what_waits_when_claims_go_on(hand: Hand, client: Client, pool: Model) -> None:
    make_model("idle")
    submit(client, pool, 2)
    hand.claim(pool)
    queue.pause_claims(by="ada")
    with psycopg.connect(**dsn() | {"autocommit": True}) as listener:
        listener.execute(f"listen {WORK_CHANNEL}")
        with transaction.atomic():
            queue.resume_claims(by="ada")
            assert list(listener.notifies(timeout=0)) == [], "not before the commit"
        [notice] = listener.notifies(timeout=5, stop_after=1)
    assert notice.payload == f"pool:{pool.pk}"


def test_a_pause_that_is_rolled_back_never_was(hand: Hand, client: Client, pool: Model) -> None:
    submit(client, pool)
    with transaction.atomic():
        queue.pause_claims(by="ada")
        transaction.set_rollback(True)
    assert len(hand.claim(pool)) == 1


def test_no_claim_commits_a_second_after_the_pause_and_nothing_is_lost(client: Client, pool: Model) -> None:
    """Four workers that claim without a pause between, and settle what they get."""
    submit(client, pool, 900)
    is_over, begun = threading.Event(), threading.Barrier(5)

    def work(hand: Hand) -> None:
        begun.wait()
        while not is_over.is_set():
            hand.settle(*hand.claim(pool, 4))

    with hands(4) as crew:
        threads = [threading.Thread(target=work, args=[one]) for one in crew]
        for thread in threads:
            thread.start()
        try:
            begun.wait()
            while Attempt.objects.count() < 40:  # all of them are at it
                assert all(thread.is_alive() for thread in threads)
            pause = queue.pause_claims(by="ada")
            paused_at = time.monotonic()
            assert pause is not None
            while time.monotonic() < paused_at + 1.5:
                latest = Attempt.objects.latest("claimed_at").claimed_at
                assert (latest - pause.since).total_seconds() < 1
            claimed = Attempt.objects.count()
            assert Attempt.objects.filter(ended_at=None).count() == 0, "what had begun was settled"
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
    assert 40 <= claimed < 900
    assert Job.objects.filter(state=State.QUEUED).count() == 900 - claimed
    assert Job.objects.filter(state=State.COMPLETED).count() == claimed
    queue.resume_claims(by="ada")
    with hands(1) as [hand]:
        assert len(hand.claim(pool, 50)) == 50
