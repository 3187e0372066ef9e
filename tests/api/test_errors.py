"""The shape of every error, whoever made it, and what is not told."""

import logging

import psycopg
import pytest
from django.db import InterfaceError, OperationalError
from django.test import override_settings
from psycopg_pool import PoolTimeout

from llmjobs import queue, representation
from llmjobs.errors import DatabaseUnavailable
from tests.api.conftest import Api, assert_error
from tests.factories import make_job

pytestmark = pytest.mark.django_db

SECRET = "the text of a prompt, and what else an exception may quote"


@pytest.mark.parametrize("path", ["", "nothing", "jobs/", "jobs/a/b", "jobs/bulk/x", "v1/chat/completions", "docs/x"])
@pytest.mark.parametrize("is_debugging", [False, True])
def test_an_unknown_address_is_404_in_json(api, path, is_debugging):
    with override_settings(DEBUG=is_debugging):
        assert_error(api.get(path), 404, "not_found")
        assert_error(Api(None).get(path), 404, "not_found")


def test_the_prefix_without_its_slash_is_the_apis_too(client):
    assert_error(client.get("/api"), 404, "not_found")
    assert client.get("/apiary")["Content-Type"].startswith("text/html")


def test_pages_outside_of_the_api_keep_their_own_errors(client):
    response = client.get("/nothing")

    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "jobs", {"GET", "POST"}),
        ("DELETE", "jobs", {"GET", "POST"}),
        ("POST", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90", {"GET", "DELETE"}),
        ("PATCH", "stats", {"GET"}),
        ("POST", "models", {"GET"}),
        ("TRACE", "jobs", {"GET"}),
        ("TRACE", "jobs/019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90?wait=0", {"GET", "DELETE"}),
        ("BREW", "jobs", {"GET"}),
        ("POST", "docs", {"GET"}),
        ("POST", "schema", {"GET"}),
    ],
)
def test_a_method_that_is_not_served_is_405_and_says_which_are(api, method, path, allowed):
    response = api.http.generic(method, f"/api/{path}", headers=api.headers)

    assert_error(response, 405, "method_not_allowed")
    assert allowed <= set(response["Allow"].replace(" ", "").split(","))


@pytest.mark.parametrize("path", ["jobs", "stats", "models"])
def test_options_says_what_is_allowed(api, path):
    response = api.http.options(f"/api/{path}", headers=api.headers)

    assert (response.status_code, response.content) == (204, b"")
    assert "GET" in response["Allow"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/*", 200),
        ("text/html, */*;q=0.1", 200),
        ("", 200),
        ("text/html", 406),
        ("application/xml, text/plain", 406),
        ("application/json;q=0", 406),
    ],
)
def test_who_accepts_no_json_is_told_so(api, accept, status):
    response = api.get("models", headers={"Accept": accept})

    assert response.status_code == status, response.content
    if status == 406:
        assert_error(response, 406, "not_acceptable")


def test_a_host_that_is_not_served_is_400_in_json(api):
    assert_error(api.http.get("/api/jobs", headers={**api.headers, "Host": "evil.example"}), 400, "bad_request")


# What went wrong on our side.


def test_what_was_not_expected_is_500_and_tells_only_its_id(api, acme, monkeypatch, caplog):
    def crash(*args, **options):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(representation, "job_json", crash)
    with caplog.at_level(logging.ERROR, logger="llmjobs.api"):
        logging.getLogger("llmjobs").addHandler(caplog.handler)
        response = api.get(f"jobs/{make_job(client=acme).public_id}")
        logging.getLogger("llmjobs").removeHandler(caplog.handler)

    error = assert_error(response, 500, "internal_error")
    assert error["type"] == "server_error"
    assert response["x-request-id"] in error["message"]
    assert SECRET not in response.content.decode()
    assert b"Traceback" not in response.content
    [record] = [record for record in caplog.records if "unexpected_error" in record.message]
    assert response["x-request-id"] in record.message
    assert record.exc_info is not None


@override_settings(DEBUG=True)
def test_a_crash_shows_no_traceback_under_debug_either(api, monkeypatch):
    monkeypatch.setattr("llmjobs.api.views.Model.objects", None)

    response = api.get("models")

    assert_error(response, 500, "internal_error")
    assert b"Traceback" not in response.content


@pytest.mark.parametrize(
    "error",
    [
        OperationalError(SECRET),
        InterfaceError(SECRET),
        psycopg.OperationalError(SECRET),
        psycopg.InterfaceError(SECRET),
        PoolTimeout(SECRET),
        DatabaseUnavailable(SECRET),
    ],
    ids=lambda error: type(error).__module__ + "." + type(error).__name__,
)
@pytest.mark.parametrize("where", ["authentication", "verb"])
def test_a_database_that_is_away_is_503_wherever_it_is_noticed(api, monkeypatch, error, where):
    def fail(*args, **options):
        raise error

    if where == "authentication":
        monkeypatch.setattr("llmjobs.api.authentication.check_key", fail)
    else:
        monkeypatch.setattr(queue, "submit_submission", fail)

    response = api.submit()

    assert assert_error(response, 503, "database_unavailable")["type"] == "server_error"
    assert int(response["Retry-After"]) >= 1
    assert SECRET not in response.content.decode()


# Request ids.


def test_every_answer_has_an_id_of_its_own(api, client):
    answers = [api.get("models"), api.get("models"), api.get("nothing"), Api(None).get("jobs"), client.get("/nothing")]

    assert len({answer["x-request-id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-123", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("a\u00e9", False), ("", False)],
)
def test_the_id_of_a_proxy_is_kept_if_it_can_not_forge_a_line_of_the_log(api, given, kept):
    answered = api.get("models", headers={"X-Request-Id": given})["x-request-id"]

    assert (answered == given) == kept
    assert answered


def test_neither_a_prompt_nor_a_key_is_logged(api, acme, caplog):
    key = api.headers["Authorization"].split()[1]
    logging.getLogger("llmjobs").addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG):
        api.submit(messages=[{"role": "user", "content": SECRET}], metadata={"m": SECRET}, user=SECRET)
        api.submit(messages=[{"role": "user", "content": SECRET}], unknown=SECRET)
        api.post("jobs", f'{{"model": "{SECRET}'.encode())
        api.get(f"jobs?metadata.m={SECRET}")
        api.get(f"jobs/{SECRET}")
    logging.getLogger("llmjobs").removeHandler(caplog.handler)

    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("llmjobs"))
    assert "status=202" in ours
    assert "route=api/jobs" in ours
    assert key[:12] in ours
    assert key not in ours
    assert SECRET not in ours
