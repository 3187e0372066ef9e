"""GET /api/jobs/{id}?wait=: what can be told in one process; what it holds while it waits is told over HTTP."""

import time

import pytest

from llmjobs.states import TERMINAL, State
from tests.api.conftest import assert_error
from tests.factories import make_job

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_is_over_is_answered_at_once(api, acme, state):
    job = make_job(state, client=acme)
    began_s = time.monotonic()

    response = api.get(f"jobs/{job.public_id}?wait=60")

    assert time.monotonic() - began_s < 50
    assert response.json()["status"] == state


@pytest.mark.parametrize("wait", ["-1", "-0.5", "nan", "inf", "-inf", "soon", "1,5", "1_0", "%D9%A3", "", "%00"])
def test_a_wait_that_is_no_time_is_refused(api, acme, wait):
    job = make_job(client=acme)

    response = api.get(f"jobs/{job.public_id}?wait={wait}")

    assert_error(response, 400, "invalid_text" if wait == "%00" else "invalid_value", "wait")


@pytest.mark.parametrize("query", ["waits=1", "wait=0&wait=1", "format=xml"])
def test_other_parameters_are_refused(api, acme, query):
    response = api.get(f"jobs/{make_job(client=acme).public_id}?{query}")

    code = "duplicate_parameter" if "&" in query else "unknown_parameter"
    assert_error(response, 400, code, query.partition("=")[0])


def test_no_wait_is_no_wait(api, acme):
    assert api.get(f"jobs/{make_job(client=acme).public_id}?wait=0").json()["status"] == State.QUEUED


def test_nobody_waits_for_anothers_job(stranger, acme):
    job = make_job(client=acme)
    began_s = time.monotonic()

    assert_error(stranger.get(f"jobs/{job.public_id}?wait=60"), 404, "job_not_found", "id")
    assert time.monotonic() - began_s < 50
