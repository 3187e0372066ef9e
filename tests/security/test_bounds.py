"""What one client, or a stranger, can make the site hold: bodies, headers, half requests, messages; behind a real
daphne, with raw sockets, since libraries are too polite.
"""

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from asgiref.testing import ApplicationCommunicator
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from llmjobs.models import Job
from project.bodies import bounded
from tests.factories import make_client, make_job, make_key, make_model
from tests.live_process import WebServer, web_server

pytestmark = pytest.mark.django_db(transaction=True)

BODY_MAX_BYTES = 100_000
WITHIN_S = 40.0


@pytest.fixture(scope="module")
def running_server(django_db_setup):
    with web_server("tests.security.impatient_site:application", LLMJOBS_BODY_MAX_BYTES=str(BODY_MAX_BYTES)) as running:
        yield running


@pytest.fixture
def server(running_server) -> Iterator[WebServer]:
    """Whatever it is sent, it has no fault of its own, and answers the next one."""
    yield running_server
    with opened(running_server, method="GET", path="/api/models") as connection:
        assert answer(connection)[0] == 401
    assert "Traceback" not in running_server.output()


@pytest.fixture
def key() -> str:
    make_model("gpt")
    return make_key(make_client("acme"))


def opened(server: WebServer, *lines: str, method: str = "POST", path: str = "/api/jobs") -> socket.socket:
    """A request whose headers are sent and whose body is not."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)
    connection.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes]:
    with closing(http.client.HTTPResponse(connection)) as response:
        response.begin()
        return response.status, response.read()


def everything(connection: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            said += piece
    return said


def code_of(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


def spooled_bytes(server: WebServer) -> int:
    """In files that the server has open, deleted ones too."""
    sizes = []
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(OSError):
            if entry.is_file():
                sizes.append(entry.stat().st_size)
    return sum(sizes)


def memory_kb(server: WebServer) -> int:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


# Bodies.


def test_a_length_above_the_bound_is_refused_before_the_body_comes(server):
    """Nobody is asked for a key first: reading the body would be what costs."""
    with opened(server, "Content-Type: application/json", f"Content-Length: {10**12}") as connection:
        status, body = answer(connection)
    assert (status, code_of(body)) == (413, "request_too_large")


def test_who_asks_whether_to_send_its_body_is_told_not_to(server):
    with opened(server, f"Content-Length: {10**9}", "Expect: 100-continue") as connection:
        said = everything(connection)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert said.count(b"HTTP/1.1") == 1  # no "100 Continue" after it


def test_who_sends_on_gets_its_answer_and_then_is_cut_off(server):
    with opened(server, f"Content-Length: {10**9}") as connection, pytest.raises(OSError):
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            connection.sendall(b"x" * 65_536)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into the server where Linux shows it")
@pytest.mark.parametrize("path", ["/api/jobs", "/admin/login/", "/nothing"])
def test_of_a_body_without_a_length_no_more_is_kept_than_the_bound(server, path):
    memory_before_kb, spooled_before = memory_kb(server), spooled_bytes(server)
    with opened(server, "Transfer-Encoding: chunked", "Content-Type: text/plain", path=path) as connection:
        for _ in range(300):
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert spooled_bytes(server) - spooled_before <= BODY_MAX_BYTES + 1
        connection.sendall(b"0\r\n\r\n")
        status, body = answer(connection)
    assert (status, code_of(body)) == (413, "request_too_large")
    assert memory_kb(server) - memory_before_kb < 10_000


def test_a_body_of_the_bound_is_taken(server, key):
    body = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": ""}]})
    body = body.replace('""', json.dumps("x" * (BODY_MAX_BYTES - len(body))))
    lines = (f"Authorization: Bearer {key}", "Content-Type: application/json", f"Content-Length: {len(body)}")
    with opened(server, *lines) as connection:
        connection.sendall(body.encode())
        assert answer(connection)[0] == 202
    assert Job.objects.count() == 1


def test_a_compressed_body_is_refused_and_not_unpacked(server, key):
    bomb = gzip.compress(b"0" * 50_000_000)
    lines = (f"Authorization: Bearer {key}", "Content-Type: application/json", "Content-Encoding: gzip")
    with opened(server, *lines, f"Content-Length: {len(bomb)}") as connection:
        connection.sendall(bomb)
        status, body = answer(connection)
    assert (status, code_of(body)) == (415, "unsupported_media_type")


# The same on a server that asks the application first.


async def exchange(application, *, headers: dict[str, str], chunks: list[bytes]) -> list[dict]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
    }
    communicator = ApplicationCommunicator(application, scope)
    for number, chunk in enumerate(chunks, start=1):
        message = {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        await communicator.send_input(message)
    await communicator.wait()
    said = []
    while not communicator.output_queue.empty():
        said.append(communicator.output_queue.get_nowait())
    return said


async def echo(scope, receive, send) -> None:
    """An application that answers whatever it is given, the client's going away too."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def refuse_to_be_asked(scope, receive, send) -> None:
    raise AssertionError("the application was asked")


async def test_a_declared_length_is_refused_without_asking_the_application(settings):
    settings.LLMJOBS_BODY_MAX_BYTES = 1024

    start, body = await exchange(bounded(refuse_to_be_asked), headers={"content-length": "1025"}, chunks=[])

    assert (start["status"], code_of(body["body"])) == (413, "request_too_large")
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert headers[b"x-request-id"].startswith(b"req_")
    assert headers[b"connection"] == b"close"


async def test_a_body_that_was_cut_is_answered_by_nobody_else(settings):
    settings.LLMJOBS_BODY_MAX_BYTES = 1024

    start, body = await exchange(bounded(echo), headers={}, chunks=[b"x" * 1000, b"y" * 25, b"z" * 10**6])

    assert (start["status"], code_of(body["body"])) == (413, "request_too_large")


async def test_a_body_within_the_bound_is_passed_on(settings):
    settings.LLMJOBS_BODY_MAX_BYTES = 1024

    start, body = await exchange(bounded(echo), headers={}, chunks=[b"x" * 1000, b"y" * 24])

    assert (start["status"], body["body"]) == (200, b"x" * 1000 + b"y" * 24)


# Headers, and requests that never become whole.


@pytest.mark.parametrize(
    "lines",
    [["X: " + "x" * 20_000], [f"X-{number}: 1" for number in range(1000)], ["Cookie: " + "a=b; " * 4_000]],
    ids=["a long one", "many", "a long cookie"],
)
def test_headers_are_bounded(server, lines):
    with opened(server, *lines, method="GET") as connection, suppress(http.client.RemoteDisconnected, OSError):
        assert answer(connection)[0] == 400  # or it is cut off without a word


@pytest.mark.parametrize("begun", ["", "Content-Length: 90000\r\n\r\n{"], ids=["headers", "body"])
def test_a_request_that_comes_byte_by_byte_is_cut_off(server, begun):
    """Long after the moment that it may take, a byte a moment keeps no connection."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WITHIN_S)
    connection.settimeout(0.05)
    with connection, pytest.raises((ConnectionError, EOFError)):
        connection.sendall(f"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\n{begun}".encode())
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                if not connection.recv(1):
                    raise EOFError


def test_a_slow_answer_is_not_cut_off(server):
    """What is bounded is how long a request may come, not how long it may take."""
    job = make_job()
    authorization, path = f"Authorization: Bearer {make_key(job.client)}", f"/api/jobs/{job.public_id}?wait=4"
    with opened(server, authorization, method="GET", path=path) as slow:
        assert answer(slow)[0] == 200


# Messages to a WebSocket, which expects none.


@pytest.mark.parametrize("size", [5_000, 2_000_000], ids=["above ours", "above daphne's"])
def test_a_long_message_to_a_socket_closes_it(server, key, size):
    with connect(
        f"{server.ws_url}/ws/jobs/", subprotocols=[Subprotocol("llmjobs"), Subprotocol(key)], proxy=None
    ) as websocket:
        with suppress(ConnectionClosed):
            websocket.send("x" * size)
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(timeout=WITHIN_S)
    assert closed.value.rcvd is None or closed.value.rcvd.code in (4413, 1009)


# What a server says itself.


@pytest.mark.parametrize("path", ["/api/jobs", "/api"])
def test_what_the_server_itself_refuses_under_the_api_is_json_too(server, path):
    with opened(server, "X: \x1c", method="GET", path=path) as connection:
        status, body = answer(connection)
    assert (status, code_of(body)) == (400, "bad_request")
