"""The API behind a real daphne: bodies as they come over the wire, what a waiting request holds, a database that
goes away."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from llmjobs import queue
from llmjobs.models import ApiKey, Job
from tests.api.conftest import MESSAGES
from tests.concurrency.threads import together
from tests.factories import make_client, make_job, make_key, make_model
from tests.helpers import database_url, eventually
from tests.live_process import WebServer, web_server

pytestmark = pytest.mark.django_db(transaction=True)

BODY_MAX_BYTES = 100_000
WAITERS = 40


@pytest.fixture(scope="module")
def server(django_db_setup):
    with web_server(LLMJOBS_BODY_MAX_BYTES=str(BODY_MAX_BYTES)) as running:
        yield running


@pytest.fixture
def acme():
    make_model("gpt")
    return make_client("acme")


@pytest.fixture
def key(acme) -> str:
    return make_key(acme)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"] == "application/json", self.body
        return self.json()["error"]["code"]


def call(server: WebServer, method: str, path: str, key: str, body=None, *, chunked=False, more=None) -> Answer:
    http_connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(more or {})}
        http_connection.request(method, f"/api/{path}", body, headers, encode_chunked=chunked)
        return Answer(http_connection.getresponse())
    finally:
        http_connection.close()


def body_of(size: int) -> bytes:
    """A submission of exactly `size` bytes."""
    empty = json.dumps({"model": "gpt", "messages": [{"role": "user", "content": ""}]}).encode()
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


def in_chunks(body: bytes, size: int = 8192):
    return (body[at : at + size] for at in range(0, len(body), size))


# Bodies.


def test_a_body_in_chunks_is_a_body(server, key):
    answer = call(server, "POST", "jobs", key, in_chunks(body_of(20_000)), chunked=True)  # of no length told

    assert answer.status == 202, answer.body
    assert len(Job.objects.get().request.body) > 19_000


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_is_taken_up_to_the_bound_and_refused_past_it(server, key, is_chunked):
    def send(size: int) -> Answer:
        body = body_of(size)
        return call(server, "POST", "jobs", key, in_chunks(body) if is_chunked else body, chunked=is_chunked)

    assert send(BODY_MAX_BYTES).status == 202
    for size in (BODY_MAX_BYTES + 1, 10_000_000):
        refused = send(size)
        assert (refused.status, refused.code) == (413, "request_too_large")
    assert Job.objects.count() == 1


def test_bytes_that_are_no_utf8_are_refused(server, key):
    answer = call(server, "POST", "jobs", key, b'{"model": "gpt", "messages": "\xff\xfe"}')

    assert (answer.status, answer.code) == (400, "invalid_json")


@pytest.mark.parametrize("path", ["jobs/%ff", "jobs/%00", "jobs/%2e%2e%2fadmin", "%e2%82", "jobs?cursor=%ff"])
def test_addresses_that_are_no_text_are_refused_in_json(server, key, path):
    answer = call(server, "GET", path, key)

    assert answer.status in (400, 404)
    assert answer.code in ("job_not_found", "not_found", "invalid_cursor")


def test_every_answer_names_its_request(server, key):
    assert call(server, "GET", "models", key).headers["x-request-id"]


# Equal posts at once.


@pytest.mark.parametrize(
    ("more", "fields"),
    [({"Idempotency-Key": "k"}, {}), ({"x-stainless-retry-count": "1"}, {}), ({}, {"dedupe": "join"})],
    ids=["key", "retry", "join"],
)
def test_fifty_equal_posts_at_once_make_one_job(server, key, more, fields):
    body = json.dumps({"model": "gpt", "messages": MESSAGES, **fields})
    answers = together([lambda: call(server, "POST", "jobs", key, body, more=more)] * 50)

    # 503: on a busy machine a connection of the six may not be free within five seconds.
    assert sorted({answer.status for answer in answers} - {409, 503}) == [200, 202]
    assert [answer.status for answer in answers].count(202) == 1
    job = Job.objects.get()
    assert {answer.json()["id"] for answer in answers if answer.status < 300} == {str(job.public_id)}


# Waiting.


def open_wait(server: WebServer, key: str, job: Job, wait_s: float) -> socket.socket:
    """A request that is sent, and not read."""
    opened = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    request = f"GET /api/jobs/{job.public_id}?wait={wait_s} HTTP/1.1"
    opened.sendall(f"{request}\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    return opened


def answer_of(opened: socket.socket) -> Answer:
    response = http.client.HTTPResponse(opened)
    response.begin()
    return Answer(response)


def cancel_soon(job: Job, delay_s: float) -> threading.Timer:
    def cancel() -> None:
        queue.cancel([job.pk])
        connection.close()

    timer = threading.Timer(delay_s, cancel)
    timer.start()
    return timer


def test_a_wait_ends_as_soon_as_the_job_is_over(server, key, acme):
    job = make_job(client=acme)
    with open_wait(server, key, job, 60) as opened:
        began_s = time.monotonic()
        cancelling = cancel_soon(job, 0.5)

        answer = answer_of(opened)

    cancelling.join()
    assert answer.json()["status"] == "cancelled"
    assert 0.4 < time.monotonic() - began_s < 50
    assert "Retry-After" not in answer.headers


def test_a_wait_ends_with_the_time(server, key, acme):
    began_s = time.monotonic()

    answer = call(server, "GET", f"jobs/{make_job(client=acme).public_id}?wait=0.5", key)

    assert answer.json()["status"] == "queued"
    assert time.monotonic() - began_s > 0.4
    assert answer.headers["Retry-After"]


def threads_of(server: WebServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Threads:")))


def connections_of_others() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="counts threads where Linux shows them")
def test_those_who_wait_hold_neither_threads_nor_connections(server, key, acme):
    job = make_job(client=acme)
    call(server, "GET", f"jobs/{job.public_id}?wait=0.1", key)  # what waiting needs once is there
    threads_before, connections_before = threads_of(server), connections_of_others()
    waiting = [open_wait(server, make_key(acme), job, 60) for _ in range(WAITERS)]
    try:

        def all_wait_and_hold_nothing() -> None:
            assert not ApiKey.objects.filter(last_used_at=None).exists(), "somebody has not been let in yet"
            assert threads_of(server) <= threads_before + 3
            assert connections_of_others() <= connections_before + 6  # those of the pool, idle

        eventually(all_wait_and_hold_nothing)
        queue.cancel([job.pk])
        assert [answer_of(opened).json()["status"] for opened in waiting] == ["cancelled"] * WAITERS
    finally:
        for opened in waiting:
            opened.close()


# The database.


@pytest.fixture
def no_database():
    """Shuts the test database to everybody but this test's own connection, and opens it again."""
    name = connection.settings_dict["NAME"]
    admin = psycopg.connect(database_url().replace(f"/{name}?", "/postgres?"), autocommit=True)

    def shut() -> None:
        admin.execute(f'alter database "{name}" with allow_connections false')
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))

    def opened() -> None:
        admin.execute(f'alter database "{name}" with allow_connections true')

    connection.close()
    yield shut, opened
    opened()
    admin.close()


def test_a_database_that_goes_away_is_503_and_comes_back_by_itself(server, key, acme, no_database):
    shut, opened = no_database
    job = make_job(client=acme)
    waiting = open_wait(server, key, job, 3)
    connection.close()
    shut()

    calls = [
        ("GET", "jobs", None),
        ("POST", "jobs", body_of(200)),
        ("GET", f"jobs/{job.public_id}", None),
        ("GET", "stats", None),
    ]
    for method, path, body in calls:
        answer = call(server, method, path, key, body)
        assert (answer.status, answer.code) == (503, "database_unavailable"), path
        assert int(answer.headers["Retry-After"]) >= 1
    assert answer_of(waiting).status == 503
    waiting.close()

    opened()
    assert call(server, "GET", "jobs", key).status == 200
    assert call(server, "POST", "jobs", key, json.dumps({"model": "gpt", "messages": MESSAGES})).status == 202
    began_s = time.monotonic()
    cancelling = cancel_soon(job, 0.3)
    assert call(server, "GET", f"jobs/{job.public_id}?wait=60", key).json()["status"] == "cancelled"
    assert time.monotonic() - began_s < 50
    cancelling.join()
