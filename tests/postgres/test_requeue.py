"""Requeue: what ended, but for an answer, is queued again at the end of its lane, as if it were new."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import Attempt, Job, JobEvent
from llmjobs.states import State
from tests.hands import claimed_job, submit

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_requeued_job_begins_anew(hand, client, pool):
    claimed = claimed_job(hand, client, pool, retry_for_s=100, expires_in_s=1_000)
    hand.settle(claimed, state=State.DEAD)
    Job.objects.update(retry_until=timezone.now() - timedelta(days=1))
    assert queue.requeue([claimed.id]) == [claimed.id]
    job = Job.objects.get()
    assert (job.state, job.failures, job.attempt, job.expires_at, job.finished_at) == (State.QUEUED, 0, 1, None, None)
    assert timedelta(seconds=95) < job.retry_until - timezone.now() <= timedelta(seconds=100)
    assert Attempt.objects.count() == 1, "its ledger stays"


def test_a_requeue_clears_the_cancel_of_the_life_before(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    queue.cancel([claimed.id])
    hand.settle(claimed, state=State.CANCELLED)
    queue.requeue([claimed.id])
    assert Job.objects.get().cancel_requested_at is None
    [again] = hand.claim(pool)
    assert hand.release(again) == {claimed.id: "queued"}


def test_many_are_requeued_in_the_order_of_their_ages(hand, client, pool):
    jobs = submit(client, pool, 1_000)
    ids = [job.id for job in jobs]
    queue.cancel(ids)
    with connection.cursor() as cursor:
        cursor.execute("analyze llmjobs_job")
    queue.requeue(reversed(ids))
    assert list(Job.objects.order_by("lane_order").values_list("id", flat=True)) == ids


def test_a_requeued_job_is_not_over(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(claimed, state=State.DEAD)
    queue.requeue([claimed.id])
    hand.settle(*hand.claim(pool))
    events = list(JobEvent.objects.order_by("seq").values_list("type", "data__status"))
    assert events == [("status", "queued"), ("done", "dead"), ("status", "queued"), ("done", "completed")]
    epochs = [seq >> 20 for seq in JobEvent.objects.order_by("seq").values_list("seq", flat=True)]
    assert epochs == [1, 3, 4, 6]


def test_an_erased_job_is_not_requeued(hand, client, pool):
    """There is nothing left that could be asked."""
    claimed = claimed_job(hand, client, pool)
    hand.settle(claimed, state=State.DEAD)
    queue.erase(claimed.id)
    assert queue.requeue([claimed.id]) == []


def test_a_requeue_wakes_its_lane(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(claimed, state=State.FAILED)
    hand.claim(pool)
    assert hand.ready_pools() == []
    queue.requeue([claimed.id])
    assert hand.ready_pools() == [pool.id]
    assert [again.attempt for again in hand.claim(pool)] == [2]
