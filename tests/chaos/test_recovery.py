"""How long a fault was felt is read from the ledger: the slowest of all that it hit, and nothing else."""

import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from llmjobs.models import Attempt, Job
from llmjobs.states import State
from tests.chaos.recovery import slowest
from tests.chaos.site import Fault
from tests.chaos.viewers import View
from tests.factories import make_job

pytestmark = pytest.mark.django_db

NOW = time.time()


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC)


def lost_at(worker, claimed_s, lost_s, again_s):
    """A job that `worker` held and lost, and that another claimed again."""
    job = make_job(State.COMPLETED)
    first = Attempt.objects.filter(job=job)
    values = first.values()[0] | {"id": None, "number": 2, "claimed_at": at(again_s), "ended_at": at(again_s + 1)}
    first.update(worker_id=worker, outcome="lost", claimed_at=at(claimed_s), ended_at=at(lost_s))
    Attempt.objects.create(**values)


def test_a_killed_workers_slowest_job_says_how_long_it_took():
    worker = uuid4()
    lost_at(worker, -5, 12, 13)
    lost_at(worker, -1, 12, 15.5)
    lost_at(uuid4(), -1, 12, 40)

    assert slowest([Fault("SIGKILL", NOW, (worker,))], []) == (pytest.approx(15.5), "SIGKILL")


def test_what_a_worker_claimed_after_the_fault_was_not_hit_by_it():
    worker = uuid4()
    lost_at(worker, 1, 12, 30)

    assert slowest([Fault("SIGSTOP", NOW, (worker,))], [])[0] == 0


def test_a_lost_job_that_was_settled_from_the_log_was_served_at_its_end():
    worker, job = uuid4(), make_job(State.COMPLETED)
    Attempt.objects.filter(job=job).update(worker_id=worker, outcome="lost", claimed_at=at(-1), ended_at=at(9))
    Job.objects.filter(pk=job.pk).update(finished_at=at(9))

    assert slowest([Fault("SIGKILL", NOW, (worker,))], []) == (pytest.approx(9), "SIGKILL")


def test_after_an_outage_both_a_claim_and_a_settle_must_have_come():
    lost_at(uuid4(), -5, -1, 4)  # claimed again after 4 s, and settled a second later

    assert slowest([Fault("Postgres crash", NOW)], []) == (pytest.approx(5), "Postgres crash")


def test_a_viewer_that_was_cut_off_counts_until_its_stream_stood_again():
    view = View("job", "sse", away=[(NOW, NOW + 2), (NOW, NOW + 3)])

    assert slowest([Fault("web SIGKILL", NOW)], [view]) == (pytest.approx(3), "viewer away")
