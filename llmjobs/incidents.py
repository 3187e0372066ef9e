"""Operators are told when a provider's jobs are stopped, and when they go on: by e-mail and by a webhook of theirs.

Owns who is told, in which words, and that it was done. Does not own incidents: the fold opens and closes them. E-mail
goes to the host's ADMINS by the host's EMAIL_* settings, the webhook to `conf.operator_webhook_url`, signed as Standard
Webhooks have it. Where neither is set, a line of the log is all.

Invariant: told at least once. An incident is taken, told over the network outside of any transaction, and then marked;
a worker that dies between leaves it to another, so the same `webhook-id` may come twice.
"""

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

import psycopg
from django.conf import settings
from django.core import mail
from django.utils import timezone
from psycopg.rows import dict_row

from llmjobs.conf import conf
from llmjobs.database import Connect
from llmjobs.signing import webhook_headers
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.incidents")

TELL_EVERY_S = 2.0
TOLD_AT_ONCE = 10
TIMEOUT_S = 10.0  # of the webhook, and of each step of the mail server
TAKEN_S = 120.0  # longer than one telling with all its time-outs
BACKOFF_BASE_S, BACKOFF_CAP_S = 10.0, 3600.0
WORDS_CHARS_MAX = 300  # of the provider's own words
HEARD_MAX = 1_000

# Why jobs wait, as people read it: in e-mails, on the admin's pages.
REASONS = {
    "provider_quota": "quota used up",
    "provider_auth": "key refused",
    "provider_down": "down",
    "rate_limit": "rate limit reached",
}


class Teller:
    """One a worker. `connect` gives a connection for a moment; none is held while somebody is told."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        # What one way has taken while the other failed: (incident, whether its opening, the way).
        self._heard: set[tuple[int, bool, str]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                while await self.tell() >= TOLD_AT_ONCE:
                    pass
            except psycopg.Error as error:
                logger.warning("event=duty_skipped duty=tell reason=%r", str(error).strip().partition("\n")[0])
            await asyncio.sleep(TELL_EVERY_S)

    async def tell(self) -> int:
        """Tell of what is due. Returns how many incidents were taken; those that failed come again later."""
        async with self._connect() as conn, conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(load("close_incidents"))
            await cursor.execute(load("tell", rows=TOLD_AT_ONCE), {"again_s": TAKEN_S})
            incidents = await cursor.fetchall()
        await asyncio.gather(*(self._tell(incident) for incident in incidents))
        return len(incidents)

    async def _tell(self, incident: dict[str, Any]) -> None:
        is_told = await self._told(incident)
        statement = "tell_done" if is_told else "tell_failed"
        params = {
            "id": incident["id"], "is_opening": incident["is_opening"],
            "base_s": BACKOFF_BASE_S, "cap_s": BACKOFF_CAP_S,
        }  # fmt: skip
        try:
            async with self._connect() as conn:
                await conn.execute(load(statement), params)
        except psycopg.Error as error:  # it is told once more, then
            logger.warning("event=telling_not_marked incident=%s reason=%r", incident["id"], type(error).__name__)

    async def _told(self, incident: dict[str, Any]) -> bool:
        """Whether every way has taken it, now or before; what one took is not sent there again by this worker."""
        if not incident["tell_failures"]:
            event = "provider_blocked" if incident["is_opening"] else "provider_unblocked"
            names = (incident["provider"], incident["model"] or "all", incident["reason"])
            logger.warning("event=%s provider=%s model=%s reason=%s", event, *names)
        ways = {}
        if settings.ADMINS:
            ways["mail"] = _by_mail
        if conf.operator_webhook_url:
            ways["webhook"] = _by_webhook
        if len(self._heard) > HEARD_MAX:
            self._heard.clear()
        done = True
        for way, send in ways.items():
            heard = (incident["id"], incident["is_opening"], way)
            if heard in self._heard:
                continue
            try:
                await send(incident)
                self._heard.add(heard)
            except Exception as error:  # a host's mail backend raises what it likes, and a worker must not end for that
                # The message may hold the URL, which may hold a secret.
                reason = f"{type(error).__name__} {getattr(error, 'status', getattr(error, 'smtp_code', ''))}".strip()
                logger.error("event=telling_failed incident=%s way=%s reason=%r", incident["id"], way, reason)
                done = False
        if done:
            self._heard -= {(incident["id"], incident["is_opening"], way) for way in ways}
        return done


class Refused(Exception):
    """The operators' webhook answered with something else than 2xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"expected a 2xx of the operators' webhook, got {status}")
        self.status = status


async def _by_mail(incident: dict[str, Any]) -> None:
    subject = f"{_subject(incident)}: {_state(incident)}"
    await asyncio.to_thread(_mail, subject, text(incident))


def _mail(subject: str, body: str) -> None:
    # Without a time-out of the host's a mail server that says nothing would keep the thread for ever.
    connection = mail.get_connection(timeout=settings.EMAIL_TIMEOUT or TIMEOUT_S)
    mail.mail_admins(subject, body, connection=connection)


async def _by_webhook(incident: dict[str, Any]) -> None:
    import httpx2  # here: the admin and the checks read this module too, and need no HTTP for it

    event = "opened" if incident["is_opening"] else "closed"
    body = json.dumps(payload(incident), ensure_ascii=False).encode()
    keys = [conf.operator_webhook_secret] if conf.operator_webhook_secret else []
    headers = webhook_headers(f"msg_incident_{incident['id']}_{event}", body, keys)
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client, asyncio.timeout(TIMEOUT_S):
        answer = await client.post(conf.operator_webhook_url, content=body, headers=headers)
    if not answer.is_success:
        raise Refused(answer.status_code)


def payload(incident: dict[str, Any]) -> dict[str, Any]:
    """The webhook's body. `text` makes it a message as Slack and its kin take it."""
    data = {name: incident[name] for name in ("provider", "model", "reason")}
    data["words"] = incident["words"][:WORDS_CHARS_MAX]
    data |= {name: _rfc3339(incident[name]) for name in ("opened_at", "closed_at")}
    if incident["is_opening"]:
        data["closed_at"] = None
    kind = "provider.blocked" if incident["is_opening"] else "provider.unblocked"
    return {"type": kind, "text": text(incident), "data": data}


def text(incident: dict[str, Any]) -> str:
    """One line for people."""
    who, why = _subject(incident), REASONS[incident["reason"]]
    if not incident["is_opening"]:
        minutes = max(1, round((incident["closed_at"] - incident["opened_at"]).total_seconds() / 60))
        return f"{who} answers again; its jobs go on. It was stopped for {minutes:,} min: {why}."
    since = f"{timezone.localtime(incident['opened_at']):%Y-%m-%d %H:%M %Z}"  # it may be told much later
    words = " ".join(incident["words"].split())[:WORDS_CHARS_MAX]
    line = f"{who}: {why} since {since}. Its jobs wait; one of them tries it now and then."
    return f"{line} It said: {words}" if words else line


def _subject(incident: dict[str, Any]) -> str:
    return f"{incident['model']} at {incident['provider']}" if incident["model"] else str(incident["provider"])


def _state(incident: dict[str, Any]) -> str:
    return REASONS[incident["reason"]] if incident["is_opening"] else "answers again"


def _rfc3339(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
