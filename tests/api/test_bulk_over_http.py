"""POST /api/jobs/bulk behind a real daphne: bodies as they come over the wire, who goes away, what a request holds."""

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection

from llmjobs import intake
from llmjobs.intake import BATCH_JOBS
from llmjobs.live.threads import in_thread
from llmjobs.models import Job
from tests.api.conftest import MESSAGES
from tests.concurrency.threads import together
from tests.factories import make_client, make_key, make_model, make_tier
from tests.live_process import WebServer, web_server

pytestmark = pytest.mark.django_db(transaction=True)

BODY_MAX_BYTES, BULK_MAX_BYTES = 20_000, 12_000_000


@pytest.fixture(scope="module")
def server(django_db_setup):
    bounds = {"BODY_MAX_BYTES": BODY_MAX_BYTES, "BULK_MAX_BYTES": BULK_MAX_BYTES, "BULK_LINES_MAX": 3_000}
    with web_server(**{f"LLMJOBS_{name}": str(value) for name, value in bounds.items()}) as running:
        yield running


@pytest.fixture
def key() -> str:
    return make_ground()


def line(number: int, size: int = 0) -> bytes:
    fields = {"model": "gpt", "messages": MESSAGES, "idempotency_key": f"key-{number}", "user": None}
    written = json.dumps(fields).encode()
    return written.replace(b"null", b" " * max(0, size - len(written)) + b"null") + b"\n"


def ask(server: WebServer, key: str, body, *, kind="application/jsonl", path="jobs/bulk", chunked=False):
    """Status, and the lines of the answer."""
    asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
        asking.request("POST", f"/api/{path}", body, headers, encode_chunked=chunked)
        answer = asking.getresponse()
        return answer.status, [json.loads(part) for part in answer.read().splitlines()]
    finally:
        asking.close()


def in_chunks(body: bytes, size: int = 8192) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_long_body_is_answered_line_by_line_in_order(server, key, is_chunked):
    body = b"".join(line(n, 1_000) for n in range(1_200))  # on daphne's disk, and three batches
    status, found = ask(server, key, in_chunks(body) if is_chunked else body, chunked=is_chunked)

    assert status == 200
    assert [one["line"] for one in found] == list(range(1, 1_201))
    ids = [str(found) for found in Job.objects.order_by("lane_order").values_list("public_id", flat=True)]
    assert [one["id"] for one in found] == ids


@pytest.mark.parametrize("is_chunked", [False, True])
def test_this_address_has_a_bound_of_its_own_and_no_other_has_it(server, key, is_chunked):
    def send(body: bytes, **more) -> tuple[int, str]:
        status, found = ask(server, key, in_chunks(body) if is_chunked else body, chunked=is_chunked, **more)
        return status, found[0]["error"]["code"] if "error" in found[0] else found[0]["object"]

    long = b"".join(line(n, 15_000) for n in range(100))
    assert send(long) == (200, "job")
    assert send(long, path="jobs/bul%6b") == (200, "job"), "the address as the application reads it"
    for other in ({"path": "jobs"}, {"kind": "application/json"}, {"kind": "application/x-www-form-urlencoded"}):
        assert send(long, **other) == (413, "request_too_large"), other
    assert send(line(1) + b" " * BULK_MAX_BYTES) == (413, "request_too_large")
    assert send(line(1, BODY_MAX_BYTES + 10)) == (200, "request_too_large"), "a line has the bound of a body"
    assert send(line(1) * 3_001) == (400, "too_many_lines")
    assert Job.objects.count() == 100


HALF_A_BODY = b"10000\r\n" + b" " * 65_536 + b"\r\n"


@pytest.mark.parametrize("length", [f"Content-Length: {BULK_MAX_BYTES}", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("credentials", ["Authorization: Bearer llmj_nobodys", "Cookie: sessionid=nobodys", "X: none"])
def test_of_who_is_not_known_no_long_body_is_read(server, length, credentials):
    """The answer comes while most of it is not sent."""
    head = f"POST /api/jobs/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/jsonl\r\n{length}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stranger:
        stranger.sendall(f"{head}{credentials}\r\n\r\n".encode() + HALF_A_BODY)
        with http.client.HTTPResponse(stranger) as answer:
            answer.begin()
            assert (answer.status, json.load(answer)["error"]["code"]) == (401, "invalid_api_key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Traceback" not in server.output()


def test_a_body_that_any_may_be_is_not_held_up_and_refused_by_the_route(server, key):
    for asked in (b"", b"\n"):
        assert ask(server, "llmj_nobodys", asked)[0] == 401
    assert ask(server, key, in_chunks(line(1)), chunked=True)[0] == 200
    assert ask(server, make_key(make_client("reads", tier=make_tier("t")), scopes=["read"]), b" " * 99_999)[0] == 403


def test_who_goes_away_half_way_and_sends_it_again_makes_nothing_twice(server, key):
    lines = [line(n, 2_000) for n in range(2_500)]
    body = b"".join(lines)
    leaving = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    head = f"POST /api/jobs/bulk HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    leaving.sendall(f"{head}Content-Type: application/jsonl\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    leaving.recv(1)  # it has begun to answer
    leaving.close()
    taken_before = Job.objects.count()

    status, found = ask(server, key, body)

    assert status == 200
    assert taken_before > 0
    assert [one["status"] for one in found] == ["queued"] * len(lines)
    assert any("idempotent_replayed" in one for one in found)
    assert len({one["id"] for one in found}) == Job.objects.count() == len(lines)


def test_the_same_body_five_times_at_once_makes_each_job_once(server, key):
    body = b"".join(line(n) for n in range(600))

    answers = together([lambda: ask(server, key, body)] * 5)

    assert {status for status, _ in answers} == {200}
    for found in zip(*(lines for _, lines in answers), strict=True):
        taken = [one for one in found if "error" not in one]
        assert {one["error"]["code"] for one in found if "error" in one} <= {"idempotency_in_progress"}
        assert len({one["id"] for one in taken}) == 1
    assert Job.objects.count() == 600


# Without a server in between.


class Reader:
    """An ASGI server's side, of a client that reads `after` so many parts of the answer no more, until it is let."""

    def __init__(self, key: str, body: bytes, after: int) -> None:
        headers = {"host": "testserver", "authorization": f"Bearer {key}", "content-type": "application/jsonl"}
        self.scope = {
            "type": "http", "method": "POST", "path": "/api/jobs/bulk", "raw_path": b"/api/jobs/bulk", "scheme": "http",
            "query_string": b"", "http_version": "1.1",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        self.said = [{"type": "http.request", "body": body, "more_body": False}]
        self.goes_on, self.is_gone = asyncio.Event(), asyncio.Event()
        self.after, self.answer, self.is_waiting = after, b"", asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.said:
            return self.said.pop()
        await self.is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.answer += message.get("body", b"")
        self.after -= 1
        if self.after == 0:
            self.is_waiting.set()
            await self.goes_on.wait()


def jobs_and_connections() -> tuple[int, int]:
    """Connections beside the one that asks."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_stat_activity where datname = current_database()")
        return Job.objects.count(), cursor.fetchone()[0] - 1


@pytest.mark.parametrize("length", [{b"content-length": str(BULK_MAX_BYTES).encode()}, {}], ids=["said", "not said"])
async def test_on_any_server_nobody_asks_for_the_long_body_of_who_is_not_known(transactional_db, length):
    from project.asgi import application

    async def receive() -> dict[str, Any]:
        raise AssertionError("expected a body that nobody asks for")

    reader = Reader("llmj_nobodys", b"", after=-1)
    reader.scope["headers"] += length.items()
    await application(reader.scope, receive, reader.send)

    assert json.loads(reader.answer)["error"]["code"] == "invalid_api_key"


async def test_who_does_not_read_is_waited_for_and_holds_nothing_meanwhile(ground_key):
    from project.asgi import application

    _, before = await in_thread(jobs_and_connections)
    reader = Reader(ground_key, b"".join(line(n) for n in range(1_200)), after=2)  # the status, and a batch
    asking = asyncio.create_task(application(reader.scope, reader.receive, reader.send))
    await reader.is_waiting.wait()

    jobs, connections = await in_thread(jobs_and_connections)
    assert jobs == BATCH_JOBS
    assert connections == before
    reader.goes_on.set()
    await asking
    assert len(reader.answer.splitlines()) == 1_200


async def test_who_goes_away_stops_the_batches_that_have_not_begun(ground_key):
    from project.asgi import application

    reader = Reader(ground_key, b"".join(line(n) for n in range(1_200)), after=2)
    asking = asyncio.create_task(application(reader.scope, reader.receive, reader.send))
    await reader.is_waiting.wait()
    reader.is_gone.set()
    await asking

    assert await in_thread(Job.objects.count) == BATCH_JOBS


async def test_when_the_database_fails_the_rest_of_the_lines_are_told(ground_key, monkeypatch):
    """The status is out by then."""
    from project.asgi import application

    real, calls = intake.Intake.take, []

    def fails_at_the_second(self: Any, asked: Any) -> Any:
        calls.append(len(asked))
        if len(calls) == 2:
            raise OperationalError("the server closed the connection unexpectedly")
        return real(self, asked)

    monkeypatch.setattr(intake.Intake, "take", fails_at_the_second)
    reader = Reader(ground_key, b"".join(line(n) for n in range(1_200)), after=-1)
    await application(reader.scope, reader.receive, reader.send)

    found = [json.loads(part) for part in reader.answer.splitlines()]
    assert [one["line"] for one in found] == list(range(1, 1_201))
    assert {one["status"] for one in found[:BATCH_JOBS]} == {"queued"}
    told = {(one["error"]["code"], one["http_status"], one["retry_after_s"]) for one in found[BATCH_JOBS:]}
    assert told == {("database_unavailable", 503, 2)}
    assert len(calls) == 2, "nobody waits for it batch by batch"


@pytest.fixture
async def ground_key(transactional_db) -> AsyncIterator[str]:
    yield await in_thread(make_ground)
    await in_thread(bool)


def make_ground() -> str:
    make_model("gpt")
    return make_key(make_client("acme", tier=make_tier("big", max_queued=None, max_queued_tokens=None)))
