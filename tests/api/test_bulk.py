"""POST /api/jobs/bulk: what becomes of each line. How the body comes over the wire: test_bulk_over_http.py."""

import json
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from llmjobs import submitting
from llmjobs.api import bulk
from llmjobs.api.schema import Generator
from llmjobs.models import ApiKey, Client, Job, JobRequest, Model
from llmjobs.states import Priority
from tests.api.conftest import MESSAGES, Api, assert_error
from tests.factories import make_client, make_key, make_model, make_tier, make_user

pytestmark = pytest.mark.django_db(transaction=True)  # what is taken is committed, and limits are checked then

JSONL = "application/jsonl"


def line(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt", "messages": MESSAGES, **fields}).encode()


def post(api: Api, body: bytes, kind: str = JSONL, **headers: str) -> Any:
    return api.http.post("/api/jobs/bulk", body, content_type=kind, headers={**api.headers, **headers})


def answers(api: Api, *lines: bytes, end: bytes = b"\n", **headers: str) -> list[dict[str, Any]]:
    response = post(api, end.join(lines), **headers)
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == JSONL
    text = b"".join(response.streaming_content).decode()
    return [json.loads(part) for part in text.splitlines()]


def codes(found: list[dict[str, Any]]) -> list[str]:
    return [one["error"]["code"] if "error" in one else one["status"] for one in found]


def in_order() -> list[str]:
    """Where the jobs that there are stood in their bodies, in the order in which they will be claimed."""
    return [job.request.metadata["at"] for job in Job.objects.select_related("request").order_by("lane_order")]


def test_each_line_is_answered_with_its_job_in_order(api, acme):
    found = answers(api, *[line(metadata={"at": str(n)}) for n in range(1, 8)])

    assert [one["line"] for one in found] == list(range(1, 8))
    jobs = {str(job.public_id): job for job in Job.objects.select_related("request")}
    assert [jobs[one["id"]].request.metadata["at"] for one in found] == [str(n) for n in range(1, 8)]
    assert in_order() == [str(n) for n in range(1, 8)]
    assert {(one["object"], one["status"]) for one in found} == {("job", "queued")}
    assert {job.client_id for job in jobs.values()} == {acme.pk}


def test_a_job_of_a_line_is_the_job_of_a_post(api):
    fields = {"priority": "low", "delay_s": 60, "user": "ann", "metadata": {"a": "b"}, "max_attempts": 2}
    [one] = answers(api, line(**fields))
    posted = api.submit(**fields).json()
    by_bulk = api.get(f"jobs/{one['id']}").json()

    differs = {"id", "links", "created_at", "available_at"}
    assert {name: by_bulk[name] for name in by_bulk.keys() - differs} == {
        name: posted[name] for name in posted.keys() - differs
    }
    assert one["status"] == "scheduled"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \t\r\n"])
def test_a_last_line_without_an_end_a_mark_at_the_beginning_and_blank_lines_do_no_harm(api, end):
    found = answers(api, b"\xef\xbb\xbf" + line(), line(), end=end)
    apart = end.count(b"\n")

    assert [(one["line"], one["status"]) for one in found] == [(1, "queued"), (1 + apart, "queued")]


def test_a_bad_line_is_its_own_error_and_refuses_no_other(api, settings):
    settings.LLMJOBS_BODY_MAX_BYTES = 2_000
    bad = {
        b"{": ("invalid_json", None),
        b"[1]": ("invalid_json", None),
        b'{"model": "gpt", "model": "gpt"}': ("invalid_json", None),
        b'{"model": "\xff"}': ("invalid_json", None),
        b"\xef\xbb\xbf" + line(): ("invalid_json", None),  # in the middle it is no mark
        line(metadata={"x": "y" * 2_000}): ("request_too_large", None),
        line(prompt="hello"): ("unknown_parameter", "prompt"),
        line(messages=[]): ("empty", "messages"),
        line(model="none"): ("model_not_found", "model"),
        line(priority="critical"): ("priority_not_allowed", "priority"),
        line(idempotency_key=7): ("invalid_type", "idempotency_key"),
        line(idempotency_key=""): ("invalid_length", "idempotency_key"),
    }
    lines = [part for one in bad for part in (one, line())]
    found = answers(api, *lines)

    assert [one["line"] for one in found] == list(range(1, len(lines) + 1))
    assert [(one["error"]["code"], one["error"]["param"]) for one in found[::2]] == list(bad.values())
    assert {one["status"] for one in found[1::2]} == {"queued"}
    assert Job.objects.count() == len(bad)
    assert {one["http_status"] for one in found[::2]} == {400, 404, 413}


def test_what_is_answered_is_as_described(api, acme):
    schema = Generator().get_schema(public=True)
    one = Draft202012Validator({"$ref": "#/components/schemas/BulkLine", "components": schema["components"]})
    acme.max_queued = 2
    acme.save()

    found = answers(api, line(idempotency_key="a"), line(idempotency_key="a"), b"x", line(), line())

    for answer in found:
        one.validate(answer)
    assert codes(found) == ["queued", "queued", "invalid_json", "queued", "queue_full"]
    assert not one.is_valid({**found[0], "surprise": 1})


# Keys.


def test_a_key_that_came_before_is_answered_with_its_job(api):
    before = api.submit(headers={"Idempotency-Key": "a"}).json()["id"]
    first = answers(api, line(idempotency_key="a"), line(idempotency_key="b"), line())
    again = answers(api, line(idempotency_key="a"), line(idempotency_key="b"), line())

    assert first[0] == {"line": 1, "id": before, "object": "job", "status": "queued", "idempotent_replayed": True}
    assert again[1] == {**first[1], "idempotent_replayed": True}
    assert again[2]["id"] != first[2]["id"], "without a key it is another job"
    assert Job.objects.count() == 4


def test_a_key_twice_in_one_body_makes_one_job(api):
    found = answers(
        api, line(idempotency_key="a"), line(), line(idempotency_key="a"), line(idempotency_key="a", user="ann")
    )

    assert found[2] == {**found[0], "line": 3, "idempotent_replayed": True}
    assert (found[3]["error"]["code"], found[3]["http_status"]) == ("idempotency_key_reused", 422)
    assert found[3]["error"]["param"] == "idempotency_key"
    assert Job.objects.count() == 2


def test_a_key_of_another_body_refuses_its_line_alone(api):
    answers(api, line(idempotency_key="a"))

    assert codes(answers(api, line(), line(idempotency_key="a", user="ann"), line())) == [
        "queued", "idempotency_key_reused", "queued",
    ]  # fmt: skip


def test_a_key_past_its_time_makes_another_job(api, settings):
    [first] = answers(api, line(idempotency_key="a"))
    settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 0
    [second] = answers(api, line(idempotency_key="a"))

    assert "idempotent_replayed" not in second
    assert second["id"] != first["id"]
    assert list(JobRequest.objects.order_by("job_id").values_list("idempotency_key", flat=True)) == [None, "a"]


def test_a_line_may_join_an_equal_job(api):
    found = answers(api, line(dedupe="join"), line(dedupe="join"), line())

    assert found[1] == {**found[0], "line": 2, "idempotent_replayed": True}
    assert Job.objects.count() == 2


# Limits.


@pytest.mark.parametrize("room", [0, 1, 6, 7, 20])
def test_a_queue_that_gets_full_takes_exactly_the_first_that_fit(api, acme, room):
    acme.max_queued = room
    acme.save()
    found = answers(api, *[line(metadata={"at": str(n)}) for n in range(20)])

    assert codes(found) == ["queued"] * room + ["queue_full"] * (20 - room)
    assert in_order() == [str(n) for n in range(room)]
    assert all(one["http_status"] == 429 and one["retry_after_s"] >= 1 for one in found[room:])


def test_after_a_full_queue_no_smaller_line_passes(api, acme):
    """The order is kept: who goes on later goes on from the first that was refused."""
    acme.max_queued_tokens = 4_000
    acme.save()
    large, small = line(messages=[{"role": "user", "content": "x" * 8_000}]), line()

    assert codes(answers(api, large, large, small)) == ["queued", "queue_full", "queue_full"]


def test_a_line_that_never_fits_is_refused_for_good_and_holds_up_nobody(api, acme):
    acme.max_queued_tokens = 1_500
    acme.save()
    large, small = line(messages=[{"role": "user", "content": "x" * 8_000}]), line()

    assert codes(answers(api, small, large, small)) == ["queued", "never_fits", "queued"]


def test_after_a_full_queue_a_line_that_came_before_still_finds_its_job(api, acme):
    before = [line(dedupe="join"), line(dedupe="join", user="ann", idempotency_key="a")]
    [made, joined] = answers(api, *before)
    acme.max_queued = 1
    acme.save()
    found = answers(api, line(), *before)

    assert codes(found) == ["queue_full", "queued", "queued"]
    assert [one["id"] for one in found[1:]] == [made["id"], joined["id"]]


def test_a_budget_refuses_who_does_not_fit_and_takes_who_does(api, acme, model):
    Model.objects.filter(pk=model.pk).update(input_usd_per_mtok=1_000, output_usd_per_mtok=0)
    make_model("free", provider=model.provider)
    acme.monthly_budget_usd = "0.50"
    acme.save()
    large, small = line(messages=[{"role": "user", "content": "x" * 1_200}]), line()

    found = answers(api, small, large, large, small, line(model="free"), large)

    assert codes(found) == ["queued", "queued", "insufficient_quota", "queued", "queued", "insufficient_quota"]
    assert "retry_after_s" not in found[2]


def test_who_asks_not_to_wait_is_refused_and_who_waits_is_taken(api, acme):
    acme.rpm = 3
    acme.save()
    waits, rejects = line(), line(when_limited="reject")

    found = answers(api, rejects, rejects, waits, rejects, waits, rejects)

    assert codes(found) == [
        "queued", "queued", "queued", "rate_limit_exceeded", "queued", "rate_limit_exceeded",
    ]  # fmt: skip


# The whole.


def test_what_refuses_the_whole_takes_nothing(api, settings):
    settings.LLMJOBS_BULK_LINES_MAX = 3
    settings.LLMJOBS_BULK_MAX_BYTES = 10_000

    assert_error(post(api, b"\n".join([line()] * 4)), 400, "too_many_lines")
    assert_error(post(api, b"\n" * 10_001), 413, "request_too_large")
    assert_error(post(api, line(), "application/json"), 415, "unsupported_media_type")
    assert_error(post(api, line(), "text/plain"), 415, "unsupported_media_type")
    assert_error(post(api, line(), **{"Content-Encoding": "gzip"}), 415, "unsupported_media_type")
    assert_error(post(api, line(), Accept="text/html"), 406, "not_acceptable")
    assert_error(post(api, line(), **{"Idempotency-Key": "a"}), 400, "invalid_value", "Idempotency-Key")
    assert_error(api.http.get("/api/jobs/bulk", headers=api.headers), 405, "method_not_allowed")
    assert not Job.objects.exists()
    assert len(answers(api, *[line()] * 3, end=b"\n")) == 3


def test_when_the_database_fails_in_the_middle_of_a_batch_what_was_committed_is_told(api, monkeypatch):
    def failing(*args: Any, **kwargs: Any) -> Any:
        if Job.objects.count() == 2:
            raise OperationalError("the server closed the connection")
        return submit_submission(*args, **kwargs)

    submit_submission = submitting.submit_submission
    monkeypatch.setattr(submitting, "submit_submission", failing)
    lines = [line(dedupe="join", messages=[{"role": "user", "content": str(n)}]) for n in range(4)]

    assert codes(answers(api, *lines)) == ["queued"] * 2 + ["database_unavailable"] * 2


def test_a_key_that_is_revoked_half_way_takes_no_more(api, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH_JOBS", 2)
    response = post(api, b"\n".join([line()] * 5))
    answered = iter(response.streaming_content)
    found = next(answered).splitlines()
    ApiKey.objects.update(revoked_at=timezone.now())
    found += b"".join(answered).splitlines()

    told = [json.loads(one) for one in found]
    assert codes(told) == ["queued"] * 2 + ["invalid_api_key"] * 3
    assert {one["http_status"] for one in told[2:]} == {401}
    assert Job.objects.count() == 2


def test_a_client_that_gets_another_tier_half_way_goes_on_in_that(api, acme, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH_JOBS", 1)
    answered = iter(post(api, b"\n".join([line(priority="high")] * 2)).streaming_content)
    next(answered)
    other = make_tier("other", max_priority=Priority.NORMAL)
    Client.objects.filter(pk=acme.pk).update(tier=other)

    assert codes([json.loads(one) for one in answered]) == ["priority_not_allowed"]


def test_no_line_has_no_answer(api):
    assert answers(api, b"\n") == answers(api, b"\n\n \n") == []


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json-lines; charset=utf-8"])
def test_the_other_names_of_json_lines_are_taken_too(api, kind):
    response = post(api, line(), kind, Accept="application/x-ndjson")

    assert response["Content-Type"] == "application/x-ndjson"
    assert json.loads(b"".join(response.streaming_content))["status"] == "queued"


def test_a_user_of_several_clients_says_for_which(model):
    make_client("one")
    two = make_client("two")
    browser = Api(None).http
    browser.force_login(make_user(two, make_client("three")))

    def ask(**headers: str) -> Any:
        return browser.post("/api/jobs/bulk", line(), content_type=JSONL, headers=headers)

    assert_error(ask(), 400, "client_required", "LLMJobs-Client")
    assert_error(ask(**{"LLMJobs-Client": "one"}), 404, "client_not_found", "LLMJobs-Client")
    assert b"queued" in b"".join(ask(**{"LLMJobs-Client": "two"}).streaming_content)
    assert Job.objects.get().client == two


def test_jobs_know_the_key_that_they_came_with(model):
    client = make_client("acme", tier=make_tier("big", max_queued=None))
    answers(Api(make_key(client)), line(), traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

    request = JobRequest.objects.get()
    assert request.api_key_id is not None
    assert request.traceparent.startswith("00-0af7651916cd43dd8448eb211c80319c-")
