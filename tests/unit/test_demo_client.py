"""The demo's own client: a full queue makes it wait, as the server says; any other refusal is the caller's."""

import json
import time

import pytest

from llmjobs.demo.client import Api, ApiError


def refusal(status, code, retry_after=None):
    body = {"error": {"code": code, "message": "no", "type": "invalid_request_error", "param": None}}
    return ApiError(status, json.dumps(body).encode(), retry_after)


@pytest.fixture
def api(monkeypatch):
    """(api, answers, waits): an answer is given, or raised where it is an error."""
    answers, waits = [], []

    def answer(*_):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    api = Api("http://localhost:1", "key")
    monkeypatch.setattr(api, "_json", answer)
    monkeypatch.setattr(time, "sleep", waits.append)
    return api, answers, waits


def test_a_full_queue_makes_it_wait_as_long_as_it_is_told(api):
    client, answers, waits = api
    answers += [refusal(429, "queue_full", "7"), refusal(429, "queue_full", "2"), {"id": "a"}]
    assert client.submit({}) == {"id": "a"}
    assert waits == [7, 2]


@pytest.mark.parametrize(
    "error", [refusal(429, "insufficient_quota", "7"), refusal(429, "queue_full"), refusal(400, "x")]
)
def test_another_refusal_is_raised(api, error):
    client, answers, waits = api
    answers.append(error)
    with pytest.raises(ApiError):
        client.submit({}, "key")
    assert waits == []


def test_a_connection_that_is_cut_off_is_tried_again_only_with_a_key(api):
    client, answers, _ = api
    answers += [OSError(), {"id": "a"}, OSError()]
    assert client.submit({}, "key") == {"id": "a"}
    with pytest.raises(OSError):
        client.submit({})


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"error": "text"}', b"\xff"])
def test_a_body_that_is_not_the_api_s_is_shown_as_it_is(body):
    assert str(ApiError(502, body)).startswith("HTTP 502: ")
