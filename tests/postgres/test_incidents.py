"""Operators are told of a provider that was stopped, and that it goes on: by e-mail, by a webhook, at least once."""

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from llmjobs import incidents
from llmjobs.coroutines import cancelled
from llmjobs.database import dsn
from llmjobs.incidents import Teller
from llmjobs.maintenance import Duties
from llmjobs.models import Incident
from project.mail import addresses
from tests.factories import make_model, make_provider
from tests.helpers import aeventually

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver:
    """An operators' webhook on loopback: answers `status`, and keeps what came."""

    def __init__(self) -> None:
        self.status = 204
        self.calls: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=very-secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.calls]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    receiver = Receiver()
    settings.LLMJOBS_OPERATOR_WEBHOOK_URL = receiver.url
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def admins(settings: Any) -> None:
    settings.ADMINS = addresses("ADMINS", "Ops <ops@example.org>")


@asynccontextmanager
async def connect():
    async with await psycopg.AsyncConnection.connect(**dsn()) as conn:
        await conn.execute("set lock_timeout = '1s'")
        yield conn


def tell(hand: Any, teller: Teller | None = None) -> int:
    return int(hand.run((teller or Teller(connect)).tell()))


def opened(**fields: Any) -> Incident:
    provider = fields.pop("provider", None) or make_provider()
    if not provider.models.exists():
        make_model(provider=provider)  # without one it would be over
    defaults = {"provider": provider, "reason": "provider_quota", "words": "You exceeded your\ncurrent quota."}
    return Incident.objects.create(**{**defaults, **fields})


def closed(incident: Incident) -> None:
    Incident.objects.filter(pk=incident.pk).update(closed_at=Now())


def test_an_incident_is_told_once_when_it_opens_and_once_when_it_closes(hand, receiver, admins):
    incident = opened()
    assert [tell(hand), tell(hand)] == [1, 0]
    closed(incident)
    assert [tell(hand), tell(hand)] == [1, 0]
    provider = incident.provider.name
    blocked, unblocked = receiver.events
    assert (blocked["type"], unblocked["type"]) == ("provider.blocked", "provider.unblocked")
    assert blocked["text"].startswith(f"{provider}: quota used up since ")
    assert blocked["text"].endswith("It said: You exceeded your current quota.") and "\n" not in blocked["text"]
    assert unblocked["text"].startswith(f"{provider} answers again; its jobs go on.")
    assert blocked["data"] | {"opened_at": 0} == {
        "provider": provider, "model": None, "reason": "provider_quota", "words": "You exceeded your\ncurrent quota.",
        "opened_at": 0, "closed_at": None, "kind": "breaker", "level": "critical", "tier": None, "client": None,
        "link": f"/admin/llmjobs/provider/{incident.provider_id}/change/",
    }  # fmt: skip
    assert unblocked["data"]["closed_at"].endswith("Z")
    assert [message.subject for message in mail.outbox] == [
        f"[llmjobs] {provider}: quota used up", f"[llmjobs] {provider}: answers again",
    ]  # fmt: skip
    assert mail.outbox[0].to == ["ops@example.org"]
    incident.refresh_from_db()
    assert incident.opening_told_at and incident.closing_told_at


def test_one_of_a_single_model_names_it(hand, receiver):
    incident = opened(reason="provider_auth")
    Incident.objects.update(pool=make_model("other", provider=incident.provider))
    tell(hand)
    assert receiver.events[0]["text"].startswith(f"other at {incident.provider}: key refused since ")
    assert receiver.events[0]["data"]["model"] == "other"


def test_the_webhook_is_signed_as_standard_webhooks_are(hand, receiver, settings):
    settings.LLMJOBS_OPERATOR_WEBHOOK_SECRET = SECRET
    incident = opened()
    tell(hand)
    closed(incident)
    tell(hand)
    for headers, body in receiver.calls:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.digest(b"k" * 32, signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        assert headers["content-type"] == "application/json"
    assert len({headers["webhook-id"] for headers, _ in receiver.calls}) == 2


def test_without_a_secret_nothing_is_signed(hand, receiver):
    opened()
    tell(hand)
    assert "webhook-signature" not in receiver.calls[0][0]


def test_a_failure_is_told_again_later_and_ever_later(hand, receiver):
    receiver.status = 500
    incident = opened()
    delays = []
    for _ in range(12):
        assert tell(hand) == 1
        incident.refresh_from_db()
        delays.append((incident.tell_again_at - timezone.now()).total_seconds())
        assert tell(hand) == 0, "not before its time"
        Incident.objects.update(tell_again_at=Now())
    assert incident.opening_told_at is None and incident.tell_failures == 12
    assert 7 < delays[0] <= 10 and 2_700 < delays[-1] <= 3_600, delays
    receiver.status = 200
    tell(hand)
    incident.refresh_from_db()
    assert incident.opening_told_at and incident.tell_failures == 0


def test_a_redirect_is_no_answer(hand, receiver):
    receiver.status = 302
    opened()
    tell(hand)
    assert Incident.objects.get().opening_told_at is None


def test_who_was_told_is_not_told_again_because_another_way_failed(hand, receiver, admins):
    receiver.status = 503
    opened()
    teller = Teller(connect)
    for _ in range(3):
        tell(hand, teller)
        Incident.objects.update(tell_again_at=Now())
    assert (len(mail.outbox), len(receiver.calls)) == (1, 3)
    receiver.status = 200
    tell(hand, teller)
    assert (len(mail.outbox), len(receiver.calls)) == (1, 4)
    assert Incident.objects.get().opening_told_at is not None


class BrokenBackend(BaseEmailBackend):
    def send_messages(self, email_messages: Any) -> int:
        raise RuntimeError("what a host's own backend may raise, with a password: very-secret")


def test_no_failure_ends_a_worker_or_shows_a_secret(hand, receiver, admins, settings, caplog):
    settings.EMAIL_BACKEND = "tests.postgres.test_incidents.BrokenBackend"
    settings.LLMJOBS_OPERATOR_WEBHOOK_SECRET = "whsec_not base64!"
    opened()
    assert tell(hand) == 1
    settings.LLMJOBS_OPERATOR_WEBHOOK_SECRET = ""
    settings.LLMJOBS_OPERATOR_WEBHOOK_URL = "http://127.0.0.1:9/?token=very-secret"
    Incident.objects.update(tell_again_at=Now())
    assert tell(hand) == 1
    failures = [line for line in caplog.messages if "event=telling_failed" in line]
    assert len(failures) == 4 and {"way=mail" in line for line in failures} == {True, False}
    assert "very-secret" not in caplog.text and "not base64" not in caplog.text


def test_with_nobody_to_tell_a_line_of_the_log_is_all(hand, caplog):
    incident = opened()
    assert [tell(hand), tell(hand)] == [1, 0]
    assert f"event=provider_blocked provider={incident.provider} model=all reason=provider_quota" in caplog.messages
    incident.refresh_from_db()
    assert incident.opening_told_at is not None


def test_no_transaction_and_no_lock_is_held_while_somebody_is_told(hand, monkeypatch):
    """And who else asks meanwhile finds nothing to tell."""
    opened()
    seen = []

    async def slow(incident: Any) -> None:
        seen.append(await Teller(connect).tell())
        async with connect() as conn:
            await conn.execute("set lock_timeout = '1s'")
            await conn.execute("update llmjobs_incident set words = 'meanwhile'")

    monkeypatch.setattr(incidents, "_by_webhook", slow)
    monkeypatch.setattr(type(incidents.conf), "operator_webhook_url", "http://nowhere", raising=False)
    tell(hand)
    assert seen == [0]
    assert Incident.objects.get().words == "meanwhile"


def test_a_worker_that_dies_while_it_tells_leaves_it_to_another(hand, receiver):
    opened()
    hand.run(_taken_and_dropped())
    assert tell(hand) == 0, "the other may still be at it"
    Incident.objects.update(tell_again_at=Now() - timedelta(seconds=1))
    assert tell(hand) == 1
    assert len(receiver.calls) == 1


async def _taken_and_dropped() -> None:
    async with connect() as conn:
        await conn.execute(incidents.load("tell", rows=10), {"again_s": incidents.TAKEN_S})


def test_what_closed_before_it_was_told_is_told_whole(hand, receiver):
    closed(opened())
    assert [tell(hand), tell(hand), tell(hand)] == [1, 1, 0]
    assert [event["type"] for event in receiver.events] == ["provider.blocked", "provider.unblocked"]


def test_who_tells_waits_for_nobody(hand, receiver):
    """A row that another transaction holds, such as a fold that closes it, is told of the next time."""
    opened()
    second = opened()
    with transaction.atomic():
        list(Incident.objects.select_for_update().filter(pk=second.pk))
        assert tell(hand) == 1
    assert tell(hand) == 1


def test_every_worker_tells_and_takes_samples(hand, receiver):
    opened()
    hand.run(_duties())
    assert len(receiver.calls) == 1


async def _duties() -> None:
    """Until an incident was told and a sample taken, over connections the first of which fails."""
    failures = iter([True])

    @asynccontextmanager
    async def shaky():
        if next(failures, False):
            raise psycopg.OperationalError("Postgres is away for a moment")
        async with connect() as conn:
            yield conn

    duties = Duties(connect=shaky, moved=lambda wakes: None, poke=lambda: None, may_reclaim=lambda: False)
    tasks = [asyncio.create_task(duty) for duty in duties.all()]

    async def done() -> None:
        async with connect() as conn:
            told = await conn.execute("select from llmjobs_incident where opening_told_at is not null")
            samples = await conn.execute("select from llmjobs_poolsample")
            assert told.rowcount == 1 and samples.rowcount == 1

    try:
        await aeventually(done)
    finally:
        await cancelled(*tasks)


def test_all_is_told_in_bounded_batches(hand, receiver):
    for _ in range(25):
        opened()
    assert [tell(hand) for _ in range(4)] == [10, 10, 5, 0]
    assert len(receiver.calls) == 25
