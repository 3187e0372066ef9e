"""Reclaims that race: with each other, and with the life that goes on."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import Job, Worker
from llmjobs.states import State
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client, make_model
from tests.hands import claimed_job, hands, submit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def short_lease(settings):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    settings.LLMJOBS_BACKOFF_BASE_S = 0.01


def die(worker: UUID) -> None:
    Worker.objects.filter(id=worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))


def test_reclaims_at_once_take_each_job_back_once():
    client, pool = make_client(tier="enterprise"), make_model()
    submit(client, pool, 250)
    with hands(5) as [dead, *living]:
        dead.claim(pool, 250)
        die(dead.worker)
        wakes = together([hand.reclaim for hand in living])
        taken = [wake.job_id for some in wakes for wake in some]
    assert len(taken) == len(set(taken)) == 250
    assert set(Job.objects.values_list("failures", flat=True)) == {1}


def test_a_slow_reclaim_does_not_take_what_was_claimed_again_meanwhile(monkeypatch):
    """Its snapshot says that the worker is dead; by the time it locks the job another worker holds it."""
    client, pool = make_client(tier="enterprise"), make_model()
    with hands(3) as [dead, slow, quick]:
        claimed_job(dead, client, pool)
        die(dead.worker)
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(7)")
        monkeypatch.setattr(queue, "load", _waiting_in_its_snapshot)
        reclaimed = started_and_waiting(slow.reclaim, backend=slow.connection.info.backend_pid)
        monkeypatch.undo()
        assert len(quick.reclaim()) == 1
        Job.objects.update(available_at=timezone.now())
        quick.stage()
        [again] = quick.claim(pool)
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(7)")
        assert reclaimed() == []
        job = Job.objects.get()
        assert (job.state, job.worker_id, job.failures) == (State.RUNNING, quick.worker, 1)
        assert quick.settle(again) == {job.id: "completed"}


def test_a_slow_reclaim_does_not_take_what_its_worker_came_back_to_and_claimed_again(monkeypatch):
    """The same worker, the same job, the next attempt: another lease than the one that was judged."""
    client, pool = make_client(tier="enterprise"), make_model()
    with hands(2) as [late, slow]:
        claimed = claimed_job(late, client, pool)
        die(late.worker)
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(7)")
        monkeypatch.setattr(queue, "load", _waiting_in_its_snapshot)
        reclaimed = started_and_waiting(slow.reclaim, backend=slow.connection.info.backend_pid)
        monkeypatch.undo()
        late.release(claimed)
        [again] = late.claim(pool)
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_unlock(7)")
        assert reclaimed() == []
        assert late.settle(again) == {again.id: "completed"}


def _waiting_in_its_snapshot(name, **literals):
    """reclaim.sql, held up between its snapshot and its locks."""
    text = load(name, **literals)
    place = "where j.state = 'running'\n        and pg_postmaster_start_time()"
    assert place in text
    return text.replace(place, place.replace("and", "and (select count(pg_advisory_xact_lock(7)::text) = 1) and"))


load = queue.load
