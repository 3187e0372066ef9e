"""Cancel: at once what waits, by its worker what runs, and nothing that is over."""

import pytest
from django.db import transaction

from llmjobs import queue
from llmjobs.models import Job, JobEvent, LaneTurn
from llmjobs.states import State
from tests.concurrency.threads import started_and_waiting
from tests.factories import make_client
from tests.hands import claimed_job, submit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("delay_s", [0, 3600])
def test_a_waiting_job_is_cancelled_at_once(hand, client, pool, delay_s):
    [job] = submit(client, pool, delay_s=delay_s)
    assert queue.cancel([job.id]) == [job.id]
    job.refresh_from_db()
    assert (job.state, job.epoch) == (State.CANCELLED, 2) and job.finished_at is not None
    event = JobEvent.objects.latest("seq")
    assert (event.type, event.data, event.seq) == ("done", {"status": "cancelled"}, 2 << 20)
    assert hand.claim(pool) == []


def test_a_running_job_is_marked_for_its_worker(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    assert queue.cancel([claimed.id]) == [claimed.id]
    job = Job.objects.get()
    assert (job.state, job.epoch, job.worker_id) == (State.RUNNING, 2, hand.worker)
    assert job.cancel_requested_at is not None and job.finished_at is None


def test_a_cancel_is_idempotent(hand, client, pool):
    waiting, running = submit(client, pool, 2)
    queue.cancel([waiting.id])
    hand.claim(pool)
    queue.cancel([running.id])
    before = list(Job.objects.order_by("id").values("epoch", "cancel_requested_at", "finished_at"))
    assert queue.cancel([waiting.id, running.id]) == []
    assert list(Job.objects.order_by("id").values("epoch", "cancel_requested_at", "finished_at")) == before


def test_the_worker_of_a_running_job_is_told_which_attempt_to_abort(hand, client, pool, other):
    claimed = claimed_job(hand, client, pool)
    other.run(other.connection.execute("listen llmjobs_work"))
    queue.cancel([claimed.id])
    notices = other.run(_heard(other.connection))
    assert f"cancel:{claimed.id}:1" in notices


def test_the_cancel_of_a_rolled_back_transaction_is_none(client, pool):
    [job] = submit(client, pool)
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.cancel([job.id])
        raise RuntimeError
    assert Job.objects.get().state == State.QUEUED


def test_another_client_s_jobs_are_left_alone(client, pool):
    [job] = submit(make_client("other", tier="enterprise"), pool)
    assert queue.cancel([job.id], client_id=client.id) == []
    assert queue.cancel([job.id], client_id=job.client_id) == [job.id]


def test_a_cancel_that_waited_for_a_settle_leaves_its_answer(hand, client, pool):
    """It decides by what the settle left, not by what it saw before."""
    claimed = claimed_job(hand, client, pool)
    hand.run(hand.connection.execute("begin"))
    hand.settle(claimed)
    cancelled = started_and_waiting(queue.cancel, [claimed.id])
    hand.run(hand.connection.execute("commit"))
    assert cancelled() == []
    job = Job.objects.get()
    assert (job.state, job.cancel_requested_at) == (State.COMPLETED, None)


def test_a_cancel_that_waited_for_a_claim_asks_its_worker(hand, client, pool):
    [job] = submit(client, pool)
    hand.run(hand.connection.execute("begin"))
    hand.claim_once(pool)
    cancelled = started_and_waiting(queue.cancel, [job.id])
    hand.run(hand.connection.execute("commit"))
    assert cancelled() == [job.id]
    job.refresh_from_db()
    assert (job.state, job.finished_at) == (State.RUNNING, None) and job.cancel_requested_at is not None


def test_a_cancel_that_waited_for_a_release_cancels_at_once(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.run(hand.connection.execute("begin"))
    hand.release(claimed)
    cancelled = started_and_waiting(queue.cancel, [claimed.id])
    hand.run(hand.connection.execute("commit"))
    assert cancelled() == [claimed.id]
    job = Job.objects.get()
    assert (job.state, job.worker_id, job.epoch) == (State.CANCELLED, None, 4)
    assert hand.claim(pool) == []


def test_a_bulk_cancel_puts_its_lanes_to_sleep(hand, client, pool):
    jobs = submit(client, pool, 200)
    hand.claim(pool)
    queue.cancel([job.id for job in jobs])
    hand.claim(pool)
    lane = LaneTurn.objects.get()
    assert (lane.is_ready, lane.queued) == (False, 0)
    assert hand.ready_pools() == []


async def _heard(connection):
    return " ".join([notice.payload async for notice in connection.notifies(timeout=5, stop_after=1)])
