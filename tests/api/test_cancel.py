"""POST /api/jobs/{id}/cancel."""

import pytest

from llmjobs.models import Job, JobEvent
from llmjobs.states import TERMINAL, State
from tests.api.conftest import Api, assert_error
from tests.factories import make_job, make_key

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED])
def test_a_waiting_job_is_cancelled_at_once(api, acme, state):
    job = make_job(state, client=acme)

    response = api.post(f"jobs/{job.public_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, "cancelled")
    assert Job.objects.get(pk=job.pk).state == State.CANCELLED
    assert JobEvent.objects.filter(job=job).latest("seq").type == "done"


def test_a_running_job_is_asked_to_stop(api, acme):
    job = make_job(State.RUNNING, client=acme)

    response = api.post(f"jobs/{job.public_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, "running")
    assert response.json()["cancel_requested"] is True
    assert "Retry-After" in response


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_is_over_stays_as_it_is(api, acme, state):
    job = make_job(state, client=acme)

    response = api.post(f"jobs/{job.public_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (200, state)
    assert Job.objects.get(pk=job.pk).epoch == job.epoch


def test_cancelling_twice_is_cancelling_once(api, acme):
    job = make_job(client=acme)

    first = api.post(f"jobs/{job.public_id}/cancel")
    second = api.post(f"jobs/{job.public_id}/cancel")

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert JobEvent.objects.filter(job=job, type="done").count() == 1


def test_nobody_cancels_anothers_job(stranger, acme):
    job = make_job(client=acme)

    assert_error(stranger.post(f"jobs/{job.public_id}/cancel"), 404, "job_not_found", "id")
    assert Job.objects.get(pk=job.pk).state == State.QUEUED


def test_an_operator_cancels_any_job(operator, acme):
    assert operator.post(f"jobs/{make_job(client=acme).public_id}/cancel").json()["status"] == "cancelled"


def test_a_key_that_only_reads_cancels_nothing(acme):
    job = make_job(client=acme)
    api = Api(make_key(acme, scopes=["read", "submit"]))

    assert_error(api.post(f"jobs/{job.public_id}/cancel"), 403, "insufficient_scope")
    assert Job.objects.get(pk=job.pk).state == State.QUEUED


def test_an_id_that_is_no_id_is_no_job(api):
    assert_error(api.post("jobs/7/cancel"), 404, "job_not_found", "id")


def test_it_is_not_read_by_get(api, acme):
    response = api.get(f"jobs/{make_job(client=acme).public_id}/cancel")

    assert_error(response, 405, "method_not_allowed")
    assert "POST" in response["Allow"]
