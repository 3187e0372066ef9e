"""GET /api/stats."""

import pytest

from llmjobs.states import State
from tests.api.conftest import Api, assert_error
from tests.factories import make_client, make_job, make_key

pytestmark = pytest.mark.django_db

FIELDS = {
    "total", "queued", "running", "enqueued_total", "dequeued_total", "by_priority", "by_client",
    "pending_by_priority", "by_tier", "by_status", "wait_s", "oldest_queued_s",
}  # fmt: skip


def test_a_client_sees_the_statistics_of_its_own_jobs(api, acme):
    make_job(client=acme)
    make_job(State.COMPLETED, client=acme)
    make_job(client=make_client("other"))

    stats = api.get("stats").json()

    assert set(stats) == FIELDS
    assert (stats["total"], stats["queued"]) == (2, 1)
    assert stats["by_client"] == {"acme": 2}


def test_an_operator_sees_all(operator, acme):
    make_job(client=acme)
    make_job(client=make_client("other"))

    assert operator.get("stats").json()["by_client"] == {"acme": 1, "other": 1}


def test_a_key_that_can_not_read_sees_none(acme):
    assert_error(Api(make_key(acme, scopes=["submit"])).get("stats"), 403, "insufficient_scope")
