"""GET /api/jobs/{id}/request: what was asked, to be asked again."""

import pytest

from llmjobs.states import State
from tests.api.conftest import assert_error
from tests.api.test_schema import schema, validator  # noqa: F401 - a fixture
from tests.factories import make_job

pytestmark = pytest.mark.django_db

FIELDS = {
    "priority": "low", "timeout_s": 33.5, "max_attempts": 2, "retry_for_s": 90, "max_cost_usd": 0.25,
    "on_interrupt": "keep", "user": "u-1", "metadata": {"b": "2", "a": "1"},
}  # fmt: skip


def test_what_it_tells_submits_the_same_again(api, model, schema):  # noqa: F811
    body = {"messages": [{"role": "user", "content": 'say "ö"\n'}], "temperature": 0.5, "zeta": [1, {"b": 1, "a": 2}]}
    first = api.submit(messages=None, body=body, webhook_url="https://hooks.example/secret", **FIELDS).json()

    told = api.get(f"jobs/{first['id']}/request")

    validator(schema, "JobRequest").validate(told.json())
    assert "hooks.example" not in told.content.decode(), "a URL may hold a token"
    asked = told.json()
    fields = {name: asked[name] for name in ("endpoint", "body", "priority", "metadata")} | asked["options"]
    assert list(asked["body"]["zeta"][1]) == ["b", "a"], "models notice the order of keys"
    again = api.submit(messages=None, model=asked["model"], **fields).json()
    for name in ("prompt_hash", "model", "priority", "timeout_s", "max_attempts", "metadata", "user", "endpoint"):
        assert again[name] == first[name], name


def test_an_erased_request_is_said_to_be(api, acme):
    job = make_job(State.COMPLETED, client=acme, request={"idempotency_key": "k"})
    plain = make_job(State.COMPLETED, client=acme)
    for each in (job, plain):  # of one the row is kept, for its key
        assert api.get(f"jobs/{each.public_id}/request").status_code == 200
        api.delete(f"jobs/{each.public_id}")
        assert_error(api.get(f"jobs/{each.public_id}/request"), 404, "request_erased")


def test_anothers_request_is_none(stranger, acme):
    job = make_job(client=acme)
    assert_error(stranger.get(f"jobs/{job.public_id}/request"), 404, "job_not_found", "id")
    assert_error(stranger.get("jobs/7/request"), 404, "job_not_found", "id")
