"""The API's plain requests take one thread each, and are answered as by Django's own road."""

import json
import threading
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from llmjobs.api.middleware import RequestIdMiddleware
from project.one_hop import is_plain, one_hop

WITHIN_S = 30.0
Answer = tuple[int, dict[str, str], bytes]


async def asked(application: Any, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Answer:
    sent = [
        (b"host", b"testserver"),
        *((name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()),
    ]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": sent,
    }
    caller = ApplicationCommunicator(application, scope)
    await caller.send_input({"type": "http.request", "body": body, "more_body": False})
    start = await caller.receive_output(WITHIN_S)
    body = (await caller.receive_output(WITHIN_S))["body"]
    await caller.wait(WITHIN_S)
    return start["status"], {name.decode().lower(): value.decode() for name, value in start["headers"]}, body


@pytest.mark.parametrize(
    ("path", "is_so"),
    [
        ("/api/jobs", True),
        ("/api/stats", True),
        ("/api/nothing", True),
        ("/api/jobs/0", False),  # may wait for a minute
        ("/api/jobs/0/events", False),
        ("/api/events", False),
        ("/", False),
        ("/admin/", False),
        ("/apiary", False),
    ],
)
def test_what_the_api_answers_at_once_is_plain_and_streams_waits_and_pages_are_not(path: str, is_so: bool) -> None:
    assert is_plain(path) is is_so


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/api/jobs", "GET", {}, 401),
        ("/api/nothing", "GET", {}, 404),
        ("/api/stats", "DELETE", {}, 401),
        ("/api/jobs", "POST", {"authorization": "Bearer nobody's", "content_type": "application/json"}, 401),
        ("/api/jobs", "GET", {"host": "elsewhere.example"}, 400),
        ("/api/schema", "GET", {}, 200),
    ],
)
async def test_an_answer_is_the_same_by_either_road(
    path: str, method: str, headers: dict[str, str], status: int
) -> None:
    usual = get_asgi_application()
    answers = [
        await asked(application, path, method, b"{}", x_request_id="the-same", **headers)
        for application in (usual, one_hop(usual))
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] == status and answers[0][1]["x-request-id"] == "the-same"


async def test_a_plain_request_is_in_one_thread_from_its_first_middleware_to_its_last(monkeypatch) -> None:
    threads = []
    real = RequestIdMiddleware.__call__

    def noted(self: RequestIdMiddleware, request: Any) -> Any:
        threads.append((threading.current_thread().name, self.is_async))
        return real(self, request)

    monkeypatch.setattr(RequestIdMiddleware, "__call__", noted)
    status, _, body = await asked(one_hop(get_asgi_application()), "/api/nothing")
    assert status == 404 and json.loads(body)["error"]["code"] == "not_found"
    [(thread, is_async)] = threads
    assert thread.startswith("llmjobs-api") and not is_async
