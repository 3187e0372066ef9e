"""Operators are told of incidents, when they open and when they are over: by e-mail and by a webhook of theirs.

Owns who is told, and that it was done. Does not own incidents (the fold opens and closes breakers, `watch.py` all
else), nor the words (`incident_words.py`). E-mail goes to the host's ADMINS by the host's EMAIL_* settings, the webhook
to `conf.operator_webhook_url`, signed as Standard Webhooks have it. Where neither is set, a line of the log is all.

Invariant: told at least once. An incident is taken, told over the network outside of any transaction, and then marked;
a worker that dies between leaves it to another, so the same `webhook-id` may come twice. Many of a kind that open or
close at one time are one message.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import psycopg
from django.conf import settings
from django.core import mail
from psycopg.rows import dict_row

from llmjobs.conf import conf
from llmjobs.database import Connect
from llmjobs.incident_words import REASONS, Facts, body, headline, link, message_id, path, payload, subject, text
from llmjobs.models import Incident
from llmjobs.signing import webhook_headers
from llmjobs.sql import load

__all__ = ["REASONS", "Teller", "headline", "link", "open_incidents", "path", "text"]

logger = logging.getLogger("llmjobs.incidents")

TELL_EVERY_S = 2.0
TOLD_AT_ONCE = 10
STORM_LEAST = 4  # so many of a kind at once are one message; fewer are told one by one
TIMEOUT_S = 10.0  # of the webhook, and of each step of the mail server
TAKEN_S = 120.0  # longer than one telling with all its time-outs
BACKOFF_BASE_S, BACKOFF_CAP_S = 10.0, 3600.0
HEARD_MAX = 10_000

Telling = Sequence[Facts]  # one incident, or a storm of one kind


def open_incidents(most: int) -> list[Incident]:
    """What is wrong now, the worst first. One query, of an index that holds the open ones alone.

    A warning that a critical one of the same kind, about the same, has overtaken is left out.
    """
    found = Incident.objects.filter(closed_at=None).select_related("provider", "pool", "tier", "client")
    rows = list(found.order_by("level", "-opened_at", "-id")[: 2 * most])  # by the alphabet: critical, warning
    worst: dict[tuple[Any, ...], Incident] = {}
    for row in rows:
        worst.setdefault((row.kind, row.provider_id, row.pool_id, row.tier_id, row.client_id), row)
    return list(worst.values())[:most]


class Teller:
    """One a process. `connect` gives a connection for a moment; none is held while somebody is told."""

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
        await asyncio.gather(*(self._tell(telling) for telling in _tellings(incidents)))
        return len(incidents)

    async def _tell(self, telling: Telling) -> None:
        is_told = await self._told(telling)
        statement = "tell_done" if is_told else "tell_failed"
        params = {
            "ids": [of["id"] for of in telling], "is_opening": telling[0]["is_opening"],
            "base_s": BACKOFF_BASE_S, "cap_s": BACKOFF_CAP_S,
        }  # fmt: skip
        try:
            async with self._connect() as conn:
                await conn.execute(load(statement), params)
        except psycopg.Error as error:  # it is told once more, then
            logger.warning("event=telling_not_marked incident=%s reason=%r", telling[0]["id"], type(error).__name__)

    async def _told(self, telling: Telling) -> bool:
        """Whether every way has taken it, now or before; what one took is not sent there again by this process."""
        for of in telling:
            if not of["tell_failures"]:
                _log(of)
        ways = {}
        if settings.ADMINS:
            ways["mail"] = _by_mail
        if conf.operator_webhook_url:
            ways["webhook"] = _by_webhook
        if len(self._heard) > HEARD_MAX:
            self._heard.clear()
        done = True
        for way, send in ways.items():
            news = [of for of in telling if (of["id"], of["is_opening"], way) not in self._heard]
            if not news:
                continue
            try:
                await send(news)
                self._heard |= {(of["id"], of["is_opening"], way) for of in news}
            except Exception as error:  # a host's mail backend raises what it likes, and a worker must not end for that
                # The message may hold the URL, which may hold a secret.
                reason = f"{type(error).__name__} {getattr(error, 'status', getattr(error, 'smtp_code', ''))}".strip()
                logger.error("event=telling_failed incident=%s way=%s reason=%r", news[0]["id"], way, reason)
                done = False
        if done:
            self._heard -= {(of["id"], of["is_opening"], way) for of in telling for way in ways}
        return done


def _tellings(incidents: Sequence[dict[str, Any]]) -> list[Telling]:
    """Each by itself, but for a storm."""
    tellings: list[Telling] = []
    ordered = sorted(incidents, key=lambda of: (of["kind"], of["is_opening"], of["id"]))
    for (kind, _), group in groupby(ordered, key=lambda of: (of["kind"], of["is_opening"])):
        rows = list(group)
        is_storm = kind != "breaker" and len(rows) >= STORM_LEAST
        tellings += [rows] if is_storm else [[row] for row in rows]
    return tellings


def _log(of: Facts) -> None:
    if of["kind"] == "breaker":
        event = "provider_blocked" if of["is_opening"] else "provider_unblocked"
        names = (of["provider"], of["model"] or "all", of["reason"])
        logger.warning("event=%s provider=%s model=%s reason=%s", event, *names)
        return
    event = "incident_opened" if of["is_opening"] else "incident_closed"
    logger.warning("event=%s kind=%s level=%s what=%r", event, of["kind"], of["level"], headline(of))


class Refused(Exception):
    """The operators' webhook answered with something else than 2xx."""

    def __init__(self, status: int) -> None:
        super().__init__(f"expected a 2xx of the operators' webhook, got {status}")
        self.status = status


async def _by_mail(telling: Telling) -> None:
    await asyncio.to_thread(_mail, telling)


def _mail(telling: Telling) -> None:
    # Without a time-out of the host's a mail server that says nothing would keep the thread for ever.
    connection = mail.get_connection(timeout=settings.EMAIL_TIMEOUT or TIMEOUT_S)
    mail.mail_admins(subject(telling), body(telling), connection=connection)


async def _by_webhook(telling: Telling) -> None:
    import httpx2  # here: the admin and the checks read this module too, and need no HTTP for it

    # In a thread: a worker's first link reads all of the host's addresses.
    said = json.dumps(await asyncio.to_thread(payload, telling), ensure_ascii=False).encode()
    keys = [conf.operator_webhook_secret] if conf.operator_webhook_secret else []
    headers = webhook_headers(message_id(telling), said, keys)
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as client, asyncio.timeout(TIMEOUT_S):
        answer = await client.post(conf.operator_webhook_url, content=said, headers=headers)
    if not answer.is_success:
        raise Refused(answer.status_code)
