"""No key, prompt or answer in any line of any log: web server, worker, simulator and the database itself, through
everything that goes wrong, and all that they wrote is searched for what they were given.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.db import connection
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from llmjobs.models import Client, HandlerCall, Job, JobResult, WebhookDelivery
from llmjobs.queue import submit
from llmjobs.states import TERMINAL
from llmjobs.testing import SimulatorProcess
from tests.chaos.database_proxy import DatabaseProxy
from tests.factories import make_client, make_key, make_model, make_provider
from tests.helpers import eventually
from tests.live_process import WebServer, web_server
from tests.worker_process import WorkerProcess, worker_process

pytestmark = pytest.mark.django_db(transaction=True)

CANARY = "canary"  # begins everything that may stand in no log
PROMPT = f"{CANARY}-prompt"
PROVIDER_KEY = f"sk-{CANARY}-provider"
TOKEN = f"{CANARY}-token-in-an-address"
FAULTS = [
    "none", "server_error:1", "rate_limit:1:1", "context_length", "content_policy", "not_found", "unauthorized:1",
    "insufficient_quota:1", "reset:1", "reset_midstream:1", "truncate:1", "malformed:1", "stream_error:1", "html:1",
]  # fmt: skip


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tokens_per_s=2000) as running:
        yield running


@pytest.fixture
def acme(transactional_db, simulator) -> Client:
    provider = make_provider("simulator", base_url=simulator.url, api_key_env="SIMULATOR_API_KEY")
    make_model("gpt", provider=provider)
    return make_client("acme", tier="enterprise")


@contextmanager
def refused_rows(table: str, condition: str) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(f"alter table {table} add constraint refused check ({condition}) not valid")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"alter table {table} drop constraint refused")


def submission(words: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"{PROMPT} {words}"}
    return {"model": "gpt", "messages": [message], "max_attempts": 3, "metadata": {"m": PROMPT}, **fields}


class Caller:
    def __init__(self, http: httpx2.Client, server: WebServer, key: str) -> None:
        self._http, self._url, self._headers = http, server.url, {"Authorization": f"Bearer {key}"}

    def post(self, body: Any, *, status: int, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**self._headers, "Content-Type": "application/json", **headers}
        answer = self._http.post(f"{self._url}/api/jobs", content=content, headers=sent)
        assert answer.status_code == status, answer.text

    def get(self, path: str, *, status: int, **headers: str) -> None:
        answer = self._http.get(f"{self._url}{path}", headers={**self._headers, **headers})
        assert answer.status_code == status, answer.text


def ask_for_everything(caller: Caller) -> None:
    for fault in FAULTS:
        caller.post(submission(f"[[tokens=20]] [[fault={fault}]]" if fault != "none" else "[[tokens=20]]"), status=202)
    caller.post(submission("again", user=PROMPT), status=202, **{"Idempotency-Key": f"{CANARY}-idempotency"})
    caller.post(submission("another"), status=422, **{"Idempotency-Key": f"{CANARY}-idempotency"})


def ask_wrongly(server: WebServer, caller: Caller, key: str) -> None:
    caller.post(submission("x", surprise=PROMPT), status=400)
    caller.post(submission("x", priority=PROMPT), status=400)
    caller.post(submission("x", model=PROMPT), status=404)
    caller.post(f'{{"model": "{PROMPT}'.encode(), status=400)
    caller.post(f'{{"model": "{PROMPT}\xff"}}'.encode("latin-1"), status=400)
    caller.post(b"[" * 2000 + PROMPT.encode(), status=400)
    caller.get(f"/api/jobs?token={TOKEN}", status=400)
    caller.get(f"/api/events?since={TOKEN}", status=400)
    caller.get(f"/nothing?token={TOKEN}", status=404)
    for path in (f"/shared/{TOKEN}/", f"/shared/{TOKEN}/text", f"/shared/{TOKEN}/{TOKEN}"):
        caller.get(path, status=404)
    caller.get("/api/jobs", status=401, Authorization=f"Bearer llmj_{CANARY}-unknown")
    caller.get("/", status=302, Cookie=f"sessionid={CANARY}-session")
    for subprotocol, path in ((key, "/ws/nothing/"), (f"llmj_{CANARY}-unknown", "/ws/jobs/"), (key, "/ws/jobs/")):
        try:
            offered = [Subprotocol("llmjobs"), Subprotocol(subprotocol)]
            url = f"{server.ws_url}{path}?token={TOKEN}&since={TOKEN}"
            with connect(url, subprotocols=offered, proxy=None) as websocket:
                websocket.send(PROMPT)
                websocket.recv(timeout=5)
        except Exception as refused:  # however it says so
            assert CANARY not in str(refused)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(f"GET /{TOKEN}\xff HTTP/1.1\r\nAuthorization: {PROVIDER_KEY}\x1c\r\n\r\n".encode("latin-1"))
        raw.recv(1000)


def let_rows_be_refused(caller: Caller) -> None:
    """A 500 whose exception has the prompt in it, and a settlement that Postgres refuses with the answer in it."""
    with refused_rows("llmjobs_jobrequest", "body not like '%refused-row%'"):
        caller.post(submission("refused-row"), status=500)
    with refused_rows("llmjobs_jobresult", "output_text = ''"):
        caller.post(submission("[[tokens=50]] its answer is refused"), status=202)
        eventually(all_are_over, within_s=30)


def tell_of_ends(acme: Any) -> None:
    """A handler that raises with what was asked, and a receiver that answers with it."""
    said = [{"role": "user", "content": f"{PROMPT} [[tokens=3]]"}]
    url = f"http://127.0.0.1:9/{CANARY}?token={CANARY}"
    submit(client=acme, model="gpt", messages=said, webhook_url=url, on_settled="tests.host_handlers.raises_the_prompt")

    def are_told() -> None:
        assert HandlerCall.objects.filter(tries__gte=1).exists()
        assert WebhookDelivery.objects.filter(tries__gte=1, error__isnull=False).exists()

    eventually(are_told, within_s=30)


def all_are_over() -> None:
    left = Job.objects.exclude(state__in=TERMINAL).values_list("state", "request__body")
    assert not left, list(left)


def lose_the_database(proxy: DatabaseProxy, caller: Caller) -> None:
    caller.post(submission("[[tokens=20]] [[ttft_ms=300]]"), status=202)
    proxy.refuse()
    caller.post(submission("nobody hears it"), status=503)
    caller.get("/api/stats", status=503)
    proxy.restore()
    eventually(lambda: caller.get("/api/stats", status=200), within_s=20)
    eventually(all_are_over, within_s=40)


def database_log() -> str:
    """Of the embedded server; "" where another is used."""
    with connection.cursor() as cursor:
        cursor.execute("show data_directory")
        log = Path(cursor.fetchone()[0]).parent / "postgres.log"
    return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture
def proxy(transactional_db) -> Iterator[DatabaseProxy]:
    running = DatabaseProxy()
    yield running
    running.refuse()


def test_no_key_no_prompt_and_no_answer_is_in_any_log(acme, simulator, proxy):
    key = make_key(acme)
    with connection.cursor() as cursor:
        cursor.execute("update llmjobs_client set webhook_secret = %s where id = %s", [f"whsec_{CANARY}", acme.pk])
    environment = {
        "DATABASE_URL": proxy.url, "SIMULATOR_API_KEY": PROVIDER_KEY, "SECRET_KEY": f"{CANARY}-secret-key" * 4,
        "LLMJOBS_WEBHOOK_ALLOW_PRIVATE": "true",
    }  # fmt: skip
    with (
        web_server(verbosity=1, **environment) as server,
        worker_process(**environment) as worker,
        httpx2.Client(trust_env=False, timeout=30) as http,
    ):
        caller = Caller(http, server, key)
        ask_for_everything(caller)
        ask_wrongly(server, caller, key)
        eventually(all_are_over, within_s=60)
        let_rows_be_refused(caller)
        tell_of_ends(acme)
        lose_the_database(proxy, caller)
        assert {"completed", "failed"} <= set(Job.objects.values_list("state", flat=True))
        assert_nothing_leaked(server, worker, key)


def assert_nothing_leaked(server: WebServer, worker: WorkerProcess, key: str) -> None:
    logs = {"web server": server.output(), "worker": worker.output(), "database": database_log()}
    answers = {text for text in JobResult.objects.values_list("output_text", flat=True) if len(text) > 30}
    assert answers
    for name, log in logs.items():
        for line in log.splitlines():
            assert CANARY not in line, (name, line)
            assert key not in line, (name, line)
            assert not [text for text in answers if text[:30] in line], (name, line)
    # And they did log what went wrong: a test of silent processes would say nothing.
    assert "event=unexpected_error" in logs["web server"] and "CheckViolation" in logs["web server"]
    assert "event=database_unavailable" in logs["web server"]
    assert '"GET /api/jobs" 400' in logs["web server"]
    assert '"GET /shared/' in logs["web server"]
    assert "event=attempt " in logs["worker"] and "outcome=unknown" in logs["worker"]
    assert "refused" in logs["worker"]
