"""POST /api/jobs."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import override_settings

from llmjobs import limits
from llmjobs.models import ApiKey, Client, Job, JobRequest, Tier
from llmjobs.states import Priority, State
from tests.api.conftest import MESSAGES, Api, assert_error
from tests.factories import make_client, make_job, make_key, make_model

pytestmark = pytest.mark.django_db


def body_of(**fields) -> bytes:
    return json.dumps({"model": "gpt", "messages": MESSAGES, **fields}).encode()


# What is taken in.


def test_a_submitted_job_is_answered_with_its_address_and_itself(api, acme):
    response = api.submit(metadata={"case": "42"}, priority="low", user="u-1")

    assert response.status_code == 202
    job = response.json()
    assert (job["object"], job["status"], job["client"], job["model"]) == ("job", "queued", "acme", "gpt")
    assert (job["priority"], job["metadata"], job["user"]) == ("low", {"case": "42"}, "u-1")
    assert response["Location"] == f"http://testserver/api/jobs/{job['id']}" == job["links"]["self"]
    assert api.get(f"jobs/{job['id']}").json()["prompt_hash"] == job["prompt_hash"]
    assert Job.objects.get().client == acme


def test_the_request_is_stored_as_it_came(api):
    api.submit(messages=None, body={"messages": MESSAGES, "temperature": 0.5, "b": 1, "a": 2})

    assert list(json.loads(JobRequest.objects.get().body)) == ["messages", "temperature", "b", "a"]


@pytest.mark.parametrize("priority", list(Priority))
def test_a_priority_has_a_name_and_a_number(priority, model):
    api = Api(make_key(make_client(tier="enterprise")))

    assert api.submit(priority=priority.word).json()["priority"] == priority.word
    assert api.submit(priority=int(priority)).json()["priority"] == priority.word


def test_a_delayed_job_is_scheduled(api):
    job = api.submit(delay_s=60).json()

    assert job["status"] == "scheduled"
    assert job["available_at"] > job["created_at"]


def test_text_in_any_script_comes_back_as_it_was(api):
    text = "Grüße, 你好, 🙂"
    job = api.submit(messages=[{"role": "user", "content": text}], metadata={"k": text}).json()

    assert job["metadata"] == {"k": text}
    assert json.loads(JobRequest.objects.get().body)["messages"][0]["content"] == text


@pytest.mark.django_db(transaction=True)
def test_a_submit_takes_four_statements_and_none_to_render_it(api, django_assert_num_queries):
    api.submit()  # notes the use of the key

    with django_assert_num_queries(4):  # the key with its client and tier; the model; the job; the wake-up
        assert api.submit().status_code == 202


# What is refused: each with its code and its field, and no row.

REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no model": ({"model": None}, 400, "missing_required_parameter", "model"),
    "a model that is no text": ({"model": 7}, 400, "invalid_type", "model"),
    "a model with a NUL": ({"model": "g\0pt"}, 400, "invalid_text", "model"),
    "an unknown model": ({"model": "gpt-0"}, 404, "model_not_found", "model"),
    "no prompt": ({"messages": None}, 400, "missing_required_parameter", "messages"),
    "two prompts": ({"input": "x"}, 400, "conflicting_parameters", "input"),
    "messages that are no array": ({"messages": "hello"}, 400, "invalid_type", "messages"),
    "no messages in it": ({"messages": []}, 400, "empty", "messages"),
    "a message that is no object": ({"messages": ["hello"]}, 400, "invalid_type", "messages[0]"),
    "a message without a role": ({"messages": [{"content": "x"}]}, 400, "invalid_type", "messages[0].role"),
    "a NUL in a prompt": (
        {"messages": [{"role": "user", "content": "a\0b"}]}, 400, "invalid_text", "messages[0].content",
    ),
    "half a surrogate pair": (
        {"messages": [{"role": "user", "content": "\ud83d"}]}, 400, "invalid_text", "messages[0].content",
    ),
    "a body that is no object": ({"messages": None, "body": []}, 400, "invalid_type", "body"),
    "an unknown endpoint": ({"endpoint": "/v1/audio"}, 400, "invalid_value", "endpoint"),
    "an unknown field": ({"prioritty": "high"}, 400, "unknown_parameter", "prioritty"),
    "a provider's field outside of body": ({"temperature": 1}, 400, "unknown_parameter", "temperature"),
    "an unknown priority": ({"priority": "urgent"}, 400, "invalid_value", "priority"),
    "a priority between two": ({"priority": 3}, 400, "invalid_value", "priority"),
    "a priority that is true": ({"priority": True}, 400, "invalid_value", "priority"),
    "a priority above the tier's": ({"priority": "critical"}, 400, "priority_not_allowed", "priority"),
    "a negative timeout": ({"timeout_s": -1}, 400, "invalid_value", "timeout_s"),
    "a timeout of no time": ({"timeout_s": 0}, 400, "invalid_value", "timeout_s"),
    "a timeout past the bound": ({"timeout_s": 1e9}, 400, "invalid_value", "timeout_s"),
    "a timeout that is text": ({"timeout_s": "5"}, 400, "invalid_type", "timeout_s"),
    "a delay that is true": ({"delay_s": True}, 400, "invalid_type", "delay_s"),
    "attempts that are no whole number": ({"max_attempts": 1.5}, 400, "invalid_type", "max_attempts"),
    "no attempts": ({"max_attempts": 0}, 400, "invalid_value", "max_attempts"),
    "a negative bound on cost": ({"max_cost_usd": -1}, 400, "invalid_value", "max_cost_usd"),
    "metadata that is no object": ({"metadata": []}, 400, "invalid_type", "metadata"),
    "metadata of a number": ({"metadata": {"a": 1}}, 400, "invalid_type", "metadata.a"),
    "metadata with a NUL": ({"metadata": {"a": "\0"}}, 400, "invalid_text", "metadata.a"),
    "too much metadata": ({"metadata": {str(n): "" for n in range(17)}}, 400, "too_many", "metadata"),
    "a value of metadata that is too long": ({"metadata": {"a": "x" * 513}}, 400, "too_long", "metadata.a"),
    "too long a user": ({"user": "u" * 257}, 400, "invalid_length", "user"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_its_error_and_no_row(api, case):
    fields, status, code, param = REFUSED[case]

    assert_error(api.submit(**fields), status, code, param)

    assert not Job.objects.exists()


@override_settings(LLMJOBS_MESSAGES_MAX=2)
def test_too_many_messages_are_refused(api):
    assert api.submit(messages=MESSAGES * 2).status_code == 202
    assert_error(api.submit(messages=MESSAGES * 3), 400, "too_many", "messages")


NO_JSON = {
    "nothing": b" ",
    "text": b"hello",
    "half of it": b'{"model": "gpt"',
    "two values": b"{} {}",
    "an array": b"[]",
    "null": b"null",
    "a number": b"1",
    "Latin-1": '{"model": "é"}'.encode("latin-1"),
    "a truncated character": b'{"model": "\xe2\x82"}',
    "UTF-16": '{"model": "gpt"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": body_of().replace(b'"gpt"', b"NaN"),
    "Infinity": b'{"delay_s": Infinity}',
    "a number beyond a float": b'{"delay_s": 1e999}',
    "an integer of 5,000 digits": b'{"delay_s": 1%s}' % (b"0" * 5_000),
    "a key that occurs twice": b'{"model": "gpt", "model": "gpt"}',
    "a key that occurs twice deep inside": b'{"body": {"messages": [{"role": "user", "role": "system"}]}}',
    "100,000 arrays in each other": b'{"messages": %s%s}' % (b"[" * 100_000, b"]" * 100_000),
    "101 objects in each other": b'{"a":' * 101 + b"1" + b"}" * 101,
    "a control character in a string": b'{"model": "g\npt"}',
}


@pytest.mark.parametrize("case", NO_JSON)
def test_what_is_no_json_object_is_refused(api, case):
    assert_error(api.post("jobs", NO_JSON[case]), 400, "invalid_json")

    assert not Job.objects.exists()


def test_a_deep_prompt_is_taken_as_long_as_it_is_within_the_bound(api):
    deep: object = "x"
    for _ in range(90):
        deep = [deep]

    assert api.submit(messages=None, body={"messages": MESSAGES, "deep": deep}).status_code == 202


@override_settings(LLMJOBS_BODY_MAX_BYTES=2048)
def test_a_body_is_taken_up_to_the_bound_and_refused_past_it(api):
    exact = body_of(user="u").replace(b'"u"', b'"u"' + b" " * (2048 - len(body_of(user="u"))))
    assert len(exact) == 2048
    assert api.post("jobs", exact).status_code == 202

    assert_error(api.post("jobs", exact + b" "), 413, "request_too_large")


def test_ten_megabytes_of_prompt_are_too_large(api):
    response = api.submit(messages=[{"role": "user", "content": "x" * 10_000_000}])

    assert_error(response, 413, "request_too_large")
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", ""]
)
def test_what_is_not_declared_as_json_is_415(api, content_type):
    response = api.http.post("/api/jobs", body_of(), content_type=content_type, headers=api.headers)

    assert_error(response, 415, "unsupported_media_type")


def test_json_may_name_its_charset(api):
    response = api.http.post(
        "/api/jobs", body_of(), content_type="application/json; charset=utf-8", headers=api.headers
    )

    assert response.status_code == 202


def test_the_checks_come_in_their_order(api):
    """Authentication, size, JSON, fields, model: who is not known learns nothing of the rest."""
    with override_settings(LLMJOBS_BODY_MAX_BYTES=1024):
        assert_error(Api("llmj_unknown").post("jobs", b"x" * 2000), 401, "invalid_api_key")
        assert_error(api.post("jobs", b"x" * 2000), 413, "request_too_large")
    assert_error(api.post("jobs", b'{"modell": "gpt-0",}'), 400, "invalid_json")
    assert_error(api.submit(model="gpt-0", timeout_s=-1), 400, "invalid_value", "timeout_s")
    assert_error(api.submit(model="gpt-0"), 404, "model_not_found", "model")


def test_a_query_parameter_is_unknown_here(api):
    assert_error(api.post("jobs?wait=1", body_of()), 400, "unknown_parameter", "wait")


# Idempotency.


def test_the_same_key_and_body_answer_the_first_job(api):
    first = api.submit(headers={"Idempotency-Key": "k-1"})
    again = api.submit(headers={"Idempotency-Key": "k-1"})

    assert (first.status_code, again.status_code) == (202, 200)
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert first.json()["idempotency_key"] == "k-1"
    assert Job.objects.count() == 1


def test_the_same_key_with_another_body_is_refused(api):
    api.submit(headers={"Idempotency-Key": "k-1"})

    assert_error(
        api.submit(headers={"Idempotency-Key": "k-1"}, delay_s=1), 422, "idempotency_key_reused", "Idempotency-Key"
    )
    assert Job.objects.count() == 1


def test_two_clients_may_use_the_same_idempotency_key(api, stranger):
    mine = api.submit(headers={"Idempotency-Key": "k-1"})
    theirs = stranger.submit(headers={"Idempotency-Key": "k-1"})

    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


@pytest.mark.parametrize("key", ["", "é", "a\tb", "k" * 256])
def test_an_idempotency_key_is_short_printable_ascii(api, key):
    assert_error(api.submit(headers={"Idempotency-Key": key}), 400, "invalid_value", "Idempotency-Key")
    assert api.submit(headers={"Idempotency-Key": "k" * 255}).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_once_make_one_job():
    make_model("gpt")
    key = make_key(make_client("acme"))
    start, answers = threading.Barrier(8), []

    def submit() -> None:
        api = Api(key)
        start.wait()
        answers.append(api.submit(headers={"Idempotency-Key": "k-1"}))
        connection.close()

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Job.objects.count() == 1


# The same post again, without a key.


def test_an_sdks_own_retry_of_a_post_answers_the_first_job(api):
    first = api.submit(headers={"x-stainless-retry-count": "0"})
    again = api.submit(headers={"x-stainless-retry-count": "1"})

    assert (first.status_code, again.status_code) == (202, 200)
    assert again["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]


def test_another_key_of_the_same_client_retries_nothing(api, acme):
    first = api.submit(headers={"x-stainless-retry-count": "0"})
    other = Api(make_key(acme)).submit(headers={"x-stainless-retry-count": "1"})

    assert (other.status_code, other.json()["id"] == first.json()["id"]) == (202, False)


@pytest.mark.parametrize("count", ["", "one", "-1", "1.0", "²", "1" * 10])
def test_a_count_that_is_no_number_is_ignored(api, count):
    api.submit(headers={"x-stainless-retry-count": "0"})

    assert api.submit(headers={"x-stainless-retry-count": count}).status_code == 202


def test_who_asks_for_it_joins_an_equal_job_that_has_not_ended(api):
    first = api.submit()
    joined = api.submit(dedupe="join")

    assert (joined.status_code, joined["Idempotent-Replayed"]) == (200, "true")
    assert joined.json()["id"] == first.json()["id"]


# A full queue.


def test_a_full_queue_answers_429_and_says_when_to_come_again(api, acme):
    Client.objects.filter(pk=acme.pk).update(max_queued=1)
    assert api.submit().status_code == 202
    response = api.submit()

    assert_error(response, 429, "queue_full")
    assert response["Retry-After"] == "30"  # nothing has started yet
    error = response.json()["error"]
    assert (error["type"], error["param"]) == ("rate_limit_error", None)
    assert "at most 1 jobs of acme may wait (max_queued)" in error["message"] and "2" in error["message"]
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_full_queue_that_shows_at_the_commit_answers_the_same(api, acme):
    Client.objects.filter(pk=acme.pk).update(max_queued=1)
    for headers in ({}, {"Idempotency-Key": "two"}):
        api.submit(headers={"Idempotency-Key": "one"})
        response = api.submit(headers=headers)
        assert_error(response, 429, "queue_full")
        assert int(response["Retry-After"]) >= 1
    replay = api.submit(headers={"Idempotency-Key": "one"})
    assert (replay.status_code, replay["Idempotent-Replayed"]) == (200, "true")


@pytest.mark.django_db(transaction=True)
def test_a_host_s_atomic_requests_do_not_put_the_answer_before_the_commit(api, acme, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(limits, "refuse_if_full", lambda *args: None)  # it sees room that is taken at the commit
    Client.objects.filter(pk=acme.pk).update(max_queued=0)
    assert_error(api.submit(), 429, "queue_full")


@pytest.mark.django_db(transaction=True)
def test_a_host_s_atomic_requests_stand_in_the_way_of_no_route(api, acme, monkeypatch):
    """Django refuses them for views that are coroutines."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    job = make_job(State.COMPLETED, client=acme)

    found = {path: api.http.head(f"/api/{path}", headers=api.headers).status_code for path in (
        f"jobs/{job.public_id}", f"jobs/{job.public_id}?wait=1", f"jobs/{job.public_id}/events", "events",
    )}  # fmt: skip

    assert set(found.values()) == {200}, found
    assert api.delete(f"jobs/{job.public_id}").status_code == 204


# What the answer tells of the client's own limits.


def test_the_clients_own_limits_are_in_headers_and_the_tiers_where_it_has_none(model):
    tier = Tier.objects.create(name="limited", rpm=60, tpm=9000)
    api = Api(make_key(make_client(tier=tier, rpm=30)))

    response = api.submit()

    assert response["x-ratelimit-limit-requests"] == "30"
    assert response["x-ratelimit-limit-tokens"] == "9000"


def test_a_client_without_limits_is_told_of_none(api):
    assert not [header for header in api.submit().headers if header.lower().startswith("x-ratelimit")]


def test_a_submit_is_noted_as_a_use_of_the_key_once_a_minute(api):
    api.submit()
    used_at = ApiKey.objects.get().last_used_at
    assert used_at is not None
    api.submit()
    assert ApiKey.objects.get().last_used_at == used_at

    ApiKey.objects.update(last_used_at=used_at - timedelta(minutes=2))
    api.submit()
    assert ApiKey.objects.filter(last_used_at__gte=used_at).exists()
