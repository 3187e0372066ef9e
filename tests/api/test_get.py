"""GET /api/jobs/{id}."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from llmjobs.models import JobEvent
from llmjobs.states import TERMINAL, EventType, Priority, State
from tests.api.conftest import assert_error
from tests.factories import make_job

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", list(State))
def test_a_job_is_shown_in_every_state(api, acme, model, state):
    job = make_job(state, client=acme, model=model)

    response = api.get(f"jobs/{job.public_id}")

    assert response.status_code == 200
    shown = response.json()
    assert (shown["id"], shown["status"], shown["model"]) == (str(job.public_id), state, "gpt")
    assert (shown["finished_at"] is not None) == (state in TERMINAL)


def test_a_completed_job_shows_the_providers_body_its_text_usage_and_cost(api, acme):
    job = make_job(State.COMPLETED, client=acme, output_text="Hello there.")

    shown = api.get(f"jobs/{job.public_id}").json()

    assert shown["output"]["choices"][0]["message"]["content"] == shown["output_text"] == "Hello there."
    assert shown["usage"]["total_tokens"] == 11
    assert shown["cost_usd"] == 0.0001
    assert shown["error"] is None


@pytest.mark.parametrize("state", [State.FAILED, State.DEAD])
def test_a_job_that_failed_says_why(api, acme, state):
    job = make_job(state, client=acme)

    error = api.get(f"jobs/{job.public_id}").json()["error"]

    assert set(error) == {"code", "message", "class", "provider_status", "attempt"}
    assert error["class"] == ("deterministic" if state == State.FAILED else "unknown")
    assert error["attempt"] == 1


def test_a_running_job_shows_the_text_so_far(api, acme):
    job = make_job(State.RUNNING, client=acme)
    for n, text in enumerate(["Hel", "lo"], start=1):
        JobEvent.objects.create(job=job, seq=(job.epoch << 20) + n, type=EventType.DELTA, data={"text": text})

    assert api.get(f"jobs/{job.public_id}").json()["output_text"] == "Hello"


def test_a_queued_job_shows_its_place(api, acme, model):
    jobs = [make_job(client=acme, model=model) for _ in range(3)]

    shown = [api.get(f"jobs/{job.public_id}").json() for job in jobs]

    assert [job["position"] for job in shown] == [0, 1, 2]
    assert {job["blocked_by"] for job in shown} == {"no_worker"}


# Who may see it.


def test_anothers_job_is_no_job(stranger, acme):
    job = make_job(client=acme)

    theirs = stranger.get(f"jobs/{job.public_id}")
    nobodys = stranger.get(f"jobs/{uuid4()}")

    assert_error(theirs, 404, "job_not_found", "id")
    assert theirs.content == nobodys.content


def test_an_operator_sees_every_clients_jobs(operator, acme):
    assert operator.get(f"jobs/{make_job(client=acme).public_id}").json()["client"] == "acme"


@pytest.mark.parametrize(
    "no_id",
    ["7", "x", "null", "-1", "%00", "019a", "{{{id}}}", "urn:uuid:{id}", "{hex}", "{id}0", " {id}", "{id}%0a", "é"],
)
def test_an_id_that_is_no_id_is_no_job(api, acme, no_id):
    job = make_job(client=acme)

    response = api.get("jobs/" + no_id.format(id=job.public_id, hex=job.public_id.hex))

    assert_error(response, 404, "job_not_found", "id")


def test_an_id_in_capitals_is_the_same_id(api, acme):
    assert api.get(f"jobs/{str(make_job(client=acme).public_id).upper()}").status_code == 200


# When to ask again.


@pytest.mark.parametrize("state", list(State))
def test_polling_is_told_when_to_come_again_until_the_end(api, acme, state):
    response = api.get(f"jobs/{make_job(state, client=acme).public_id}")

    assert ("Retry-After" in response) == (state not in TERMINAL)
    assert 1 <= int(response.get("Retry-After", "1")) <= 30


def test_a_job_for_later_need_not_be_asked_for_soon(api, acme):
    job = make_job(State.SCHEDULED, client=acme, available_at=timezone.now() + timedelta(hours=1))

    assert api.get(f"jobs/{job.public_id}")["Retry-After"] == "30"


def test_head_is_get_without_a_body(api, acme):
    job = make_job(priority=Priority.HIGH, client=acme)

    response = api.http.head(f"/api/jobs/{job.public_id}", headers=api.headers)

    assert (response.status_code, response.content) == (200, b"")


def test_answers_are_not_to_be_stored_by_caches(api, acme):
    assert api.get(f"jobs/{make_job(client=acme).public_id}")["Cache-Control"] == "no-store"
