"""DELETE /api/jobs/{id}."""

import pytest

from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult
from llmjobs.states import TERMINAL, State
from tests.api.conftest import Api, assert_error
from tests.factories import make_job, make_key

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_finished_jobs_request_output_and_events_go_and_its_ledger_stays(api, acme, state):
    job = make_job(state, client=acme, request={"metadata": {"case": "42"}})
    attempts = list(Attempt.objects.filter(job=job).values())

    response = api.delete(f"jobs/{job.public_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert not JobRequest.objects.filter(job=job).exists()
    for result in JobResult.objects.filter(job=job):
        assert (result.output, result.output_text, result.error_message) == (None, "", None)
    assert not JobEvent.objects.filter(job=job).exists()
    assert Job.objects.get(pk=job.pk).state == state
    assert list(Attempt.objects.filter(job=job).values()) == attempts


def test_an_erased_job_is_shown_without_what_was_erased(api, acme):
    job = make_job(State.COMPLETED, client=acme)
    api.delete(f"jobs/{job.public_id}")

    shown = api.get(f"jobs/{job.public_id}").json()

    assert shown["status"] == "completed"
    assert (shown["output"], shown["output_text"], shown["metadata"], shown["prompt_hash"]) == (None, "", {}, None)
    assert [listed["id"] for listed in api.get("jobs").json()["data"]] == [shown["id"]]


def test_erasing_twice_is_erasing_once(api, acme):
    job = make_job(State.COMPLETED, client=acme)

    assert [api.delete(f"jobs/{job.public_id}").status_code for _ in range(2)] == [204, 204]


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL))
def test_a_job_that_is_not_over_is_not_erased(api, acme, state):
    job = make_job(state, client=acme)

    error = assert_error(api.delete(f"jobs/{job.public_id}"), 409, "not_allowed")

    assert state in error["message"]
    assert JobRequest.objects.filter(job=job).exists()


def test_nobody_erases_anothers_job(stranger, acme):
    job = make_job(State.COMPLETED, client=acme)

    assert_error(stranger.delete(f"jobs/{job.public_id}"), 404, "job_not_found", "id")
    assert JobRequest.objects.filter(job=job).exists()


def test_a_key_that_only_reads_erases_nothing(acme):
    job = make_job(State.COMPLETED, client=acme)

    assert_error(Api(make_key(acme, scopes=["read"])).delete(f"jobs/{job.public_id}"), 403, "insufficient_scope")
    assert JobRequest.objects.filter(job=job).exists()
