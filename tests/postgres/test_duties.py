"""Stage, expire, sweep: what comes due is moved, once, and in bounded batches."""

import pytest
from django.db import connection, transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.folding import SHARD, fold
from llmjobs.models import Inbox, Job, JobEvent, LaneTurn, ShardTurn
from llmjobs.sql import load
from llmjobs.states import State
from tests.concurrency.threads import together
from tests.hands import claimed_job, submit

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_scheduled_job_is_queued_when_its_time_has_come(hand, client, pool):
    [job] = submit(client, pool, delay_s=60)
    assert hand.stage() == []
    Job.objects.update(available_at=timezone.now())
    [wake] = hand.stage()
    job.refresh_from_db()
    assert (wake.job_id, wake.client_id, wake.seq) == (job.id, client.id, 2 << 20)
    assert (job.state, job.epoch) == (State.QUEUED, 2)
    assert JobEvent.objects.latest("seq").data == {"status": "queued", "attempt": 0}
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_due_jobs_are_staged_in_bounded_batches(hand, client, pool, monkeypatch):
    monkeypatch.setattr(queue, "DUTY_ROWS", 2)
    submit(client, pool, 5, delay_s=60)
    Job.objects.update(available_at=timezone.now())
    assert [len(hand.stage()) for _ in range(4)] == [2, 2, 1, 0]
    assert len(hand.claim(pool, 16)) == 5


def test_a_stage_waits_for_nobody(hand, client, pool):
    submit(client, pool, 2, delay_s=60)
    Job.objects.update(available_at=timezone.now())
    with transaction.atomic():
        list(Job.objects.select_for_update().order_by("id")[:1])
        assert len(hand.stage()) == 1


@pytest.mark.parametrize("delay_s", [0, 3600])
def test_a_waiting_job_expires_at_its_deadline(hand, client, pool, delay_s):
    [job] = submit(client, pool, delay_s=delay_s, expires_in_s=60)
    assert hand.expire() == []
    Job.objects.update(expires_at=timezone.now())
    [wake] = hand.expire()
    job.refresh_from_db()
    assert (job.state, job.epoch, wake.seq) == (State.EXPIRED, 2, 2 << 20)
    assert job.finished_at is not None
    assert JobEvent.objects.latest("seq").data == {"status": "expired"}
    assert hand.claim(pool) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED])
def test_a_job_that_waits_for_another_try_has_started_and_does_not_expire(hand, client, pool, state):
    claimed = claimed_job(hand, client, pool, expires_in_s=60)
    hand.settle(claimed, state=state)
    Job.objects.update(expires_at=timezone.now(), available_at=timezone.now())
    assert hand.expire() == []
    hand.stage()
    assert [job.id for job in hand.claim(pool)] == [claimed.id]


def test_a_job_that_has_started_does_not_expire(hand, client, pool):
    claimed_job(hand, client, pool, expires_in_s=60)
    Job.objects.update(expires_at=timezone.now())
    assert hand.expire() == []


def test_expired_jobs_leave_the_count_of_their_lane(hand, client, pool):
    submit(client, pool, 3, expires_in_s=60)
    [kept] = submit(client, pool)
    assert hand.claim_once(pool, 1).jobs
    Job.objects.filter(state="queued", expires_at__isnull=False).update(expires_at=timezone.now())
    hand.expire()
    assert [claimed.id for claimed in hand.claim(pool, 4)] == [kept.id]
    hand.claim(pool)
    assert LaneTurn.objects.get().queued == 0


def test_a_sweep_takes_what_committed_behind_the_bound(hand, client, pool):
    """A transaction took its number early and committed some seconds late: no claim looks there any more."""
    [job] = submit(client, pool)
    late = Inbox.objects.get()
    Inbox.objects.all().delete()
    submit(client, pool)
    hand.settle(*hand.claim(pool))
    ShardTurn.objects.update(bound_id=late.id + 1)
    Inbox.objects.bulk_create([late])
    assert hand.ready_pools() == [pool.id], "the settle's news"
    hand.claim(pool)
    assert Inbox.objects.filter(id=late.id).exists(), "the test has teeth: claims don't see it"
    assert hand.sweep() == 1
    assert hand.ready_pools() == [pool.id]
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_a_late_first_job_of_a_client_is_swept_up_too(hand, client, pool):
    """Its flow and lane do not exist yet."""
    [job] = submit(client, pool)
    ShardTurn.objects.update(bound_id=Inbox.objects.get().id + 1)
    assert hand.claim(pool) == []
    assert hand.sweep() == 1
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_one_worker_sweeps_at_a_time(hand, client, pool):
    """Not all of them, one behind the other at the turnstile, where claims wait too."""
    submit(client, pool)
    ShardTurn.objects.update(bound_id=Inbox.objects.get().id + 1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(load("sweep_is_due"), {"shard": SHARD, "is_full": False})
        assert cursor.fetchone()[0] is True, "another one is about to sweep"
        assert hand.sweep() == 0
    assert hand.sweep() == 1


def test_the_bound_follows_by_two_to_four_seconds(hand, client, pool):
    def fold():
        submit(client, pool)
        hand.claim(pool)
        return ShardTurn.objects.get()

    def pass_time(seconds):
        with connection.cursor() as cursor:
            cursor.execute(
                "update llmjobs_shardturn set next_bound_at = next_bound_at - make_interval(secs => %s)", [seconds]
            )

    pass_time(3)
    first = fold()
    assert first.next_bound_id == first.folded_to > 0 and first.bound_id == 0
    pass_time(1)
    assert fold().bound_id == 0, "a transaction that took a second is not behind it"
    pass_time(1.2)
    assert fold().bound_id == first.folded_to


def test_rows_that_were_folded_are_gone(hand, client, pool):
    submit(client, pool, 3)
    hand.settle(*hand.claim(pool, 3))
    hand.claim(pool)
    assert not Inbox.objects.exists()
    assert ShardTurn.objects.count() == 1, "one turn a shard"


def test_an_edit_between_grow_and_fold_waits_for_its_tier(hand, client, pool):
    """A row of the inbox whose tier has no turn in that pool yet is not folded away without an effect."""
    submit(client, pool, 2)
    hand.claim(pool)
    with connection.cursor() as cursor:
        cursor.execute("insert into llmjobs_tier (name, weight, max_priority) values ('new', 2, 0) returning id")
        [tier_id] = cursor.fetchone()
        cursor.execute("update llmjobs_client set tier_id = %s", [tier_id])
    submit(client, pool)

    async def fold_without_grow():
        async with hand.connection.transaction():
            await fold(hand.connection, is_grown=False)

    hand.run(fold_without_grow())
    assert [claimed.tier for claimed in hand.claim(pool, 4)] == ["new", "new"]


def test_a_sweep_looks_again_for_as_long_as_a_transaction_from_before_is_open(hand, client, pool):
    """Its own bound moves on only once nobody is left who may still bring a row from behind it."""

    def time_goes_by():
        hand.run(
            hand.connection.execute(
                "update llmjobs_shardturn set next_bound_at = next_bound_at - interval '3 s', "
                "aged_to = aged_to - interval '13 s'"
            )
        )

    submit(client, pool)
    hand.settle(*hand.claim(pool))
    with transaction.atomic():
        [late] = submit(client, pool)
        for _ in range(5):
            together([lambda: submit(client, pool)])
            time_goes_by()
            hand.settle(*hand.claim(pool))
            time_goes_by()
            hand.sweep()
    time_goes_by()
    hand.sweep()
    assert [job.id for job in hand.claim(pool)] == [late.id]
