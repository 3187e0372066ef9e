"""The CHECKs: rows that must not be can't be, whoever writes them."""

import uuid

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from llmjobs.models import Attempt, Job, JobEvent
from llmjobs.states import TERMINAL, State
from tests.factories import make_client, make_job, make_model

pytestmark = pytest.mark.django_db


def refused(constraint, **changes):
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Job.objects.update(**changes)


@pytest.mark.parametrize("state", [state for state in State if state != State.RUNNING])
def test_only_a_running_job_has_a_worker(state):
    make_job(state)
    refused("job_running_iff_held", worker_id=uuid.uuid4())


def test_a_running_job_has_a_worker():
    make_job(State.RUNNING)
    refused("job_running_iff_held", worker_id=None)


@pytest.mark.parametrize("state", list(State))
def test_a_job_is_finished_if_and_only_if_it_is_terminal(state):
    make_job(state)
    refused("job_terminal_iff_finished", finished_at=None if state in TERMINAL else timezone.now())


@pytest.mark.parametrize("changes", [{"started_at": None}, {"attempt": 0}])
def test_a_running_job_was_started(changes):
    make_job(State.RUNNING)
    refused("job_running_was_started", **changes)


@pytest.mark.parametrize(
    ("constraint", "changes"),
    [
        ("job_state_known|job_terminal_iff_finished", {"state": "paused"}),
        ("job_failures_within_attempts", {"failures": 2}),
        ("job_priority_and_size_known", {"priority": 3}),
        ("job_priority_and_size_known", {"size": 2}),
        ("job_bounds_positive", {"max_attempts": 0}),
        ("job_bounds_positive", {"timeout_s": 0}),
        ("job_bounds_positive", {"retry_for_s": -1}),
        ("job_bounds_positive", {"est_cost": -1}),
        ("job_endpoint_known", {"endpoint": "/v1/nothing"}),
    ],
)
def test_a_column_out_of_its_bounds_is_refused(constraint, changes):
    make_job(State.QUEUED)
    refused(constraint, **changes)


def test_an_attempt_that_ended_has_an_outcome():
    make_job(State.RUNNING)
    with pytest.raises(IntegrityError, match="attempt_ended_iff_outcome"), transaction.atomic():
        Attempt.objects.update(ended_at=timezone.now())
    with pytest.raises(IntegrityError, match="attempt_ended_iff_outcome"), transaction.atomic():
        Attempt.objects.update(outcome="completed")


def test_an_attempt_has_its_number_for_itself():
    job = make_job(State.RUNNING)
    attempt = Attempt.objects.get(job=job)
    attempt.pk = None
    with pytest.raises(IntegrityError, match="attempt_of_job"), transaction.atomic():
        attempt.save()


def test_an_event_has_its_number_for_itself():
    job = make_job(State.QUEUED)
    event = JobEvent.objects.get(job=job)
    with pytest.raises(IntegrityError, match="event_of_job"), transaction.atomic():
        JobEvent.objects.create(job=job, seq=event.seq, type="delta", data={})


def test_an_event_s_type_is_one_that_viewers_know():
    job = make_job(State.QUEUED)
    with pytest.raises(IntegrityError, match="event_type_known"), transaction.atomic():
        JobEvent.objects.create(job=job, seq=9, type="other", data={})


def test_the_factories_fill_what_a_state_implies():
    client, model = make_client(), make_model()
    for state in State:
        make_job(state, client=client, model=model)
    assert Job.objects.count() == len(State)
