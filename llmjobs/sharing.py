"""Links that show one job to whoever has them: made, revoked, looked up, and what they show.

Owns how long a link is valid, how many there may be, and what stands behind it. Does not own who may make one
(`access.py`), nor its page (console/shared.py). Invariant: a token is in the answer that made it and nowhere else;
what a link shows is the words of the job, and nothing of whom it belongs to or what it cost.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now

from llmjobs.conf import conf
from llmjobs.errors import NotAllowed
from llmjobs.models import Job, JobRequest, SharedLink
from llmjobs.models.tenants import hash_key
from llmjobs.prompts import Message, messages
from llmjobs.sql import load

TOKEN_BYTES = 32
TOKEN_CHARS_MAX = 64  # what is longer is none, and not hashed
GONE_KEPT = 50  # of a job: links that are not valid any more, for operators who ask who had made one
TEXT_CHARS_MAX = 400_000  # of what was asked, and of the answer
VALID = Q(revoked_at=None, expires_at__gt=Now())


@dataclass(frozen=True, slots=True)
class Shared:
    """What a link shows. `text` grows while `is_terminal` is False; `note` says what is left out."""

    model: str
    status: str
    is_terminal: bool
    epoch: int  # a text of another epoch is another text
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime
    messages: list[Message]
    text: str
    note: str


def share(
    job: Job, *, expires_in_s: float | None, user_id: Any = None, api_key_id: int | None = None
) -> tuple[SharedLink, str]:
    """The row, and the token. `expires_in_s` None: conf.share_default_s; longer than conf.share_max_s counts as that.

    Raises NotAllowed: links are switched off, the job was erased, or it has too many.
    """
    if not conf.share_links:
        raise NotAllowed("expected a site with links to share, got one where they are switched off")
    lasts_s = min(conf.share_default_s if expires_in_s is None else expires_in_s, conf.share_max_s)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_xact_lock(hashtext('llmjobs.share'), %s)", [job.pk % 2**31])
        if not JobRequest.objects.filter(job=job).exclude(body="").exists():
            raise NotAllowed("expected a job with a request to show, got one that was erased")
        links = SharedLink.objects.filter(job=job)
        if links.filter(VALID).count() >= conf.shares_per_job_max:
            raise NotAllowed(
                f"expected fewer than {conf.shares_per_job_max} valid links of this job: revoke one of them first"
            )
        gone = links.exclude(VALID).order_by("-id").values("pk")[GONE_KEPT:]
        links.filter(pk__in=list(gone.values_list("pk", flat=True))).delete()
        link = SharedLink.objects.create(
            job=job,
            hash=hash_key(token),
            created_by_id=user_id,
            api_key_id=api_key_id,
            expires_at=Now() + timedelta(seconds=lasts_s),
        )
        link.refresh_from_db()
    return link, token


def links_of(job: Job) -> list[SharedLink]:
    """The newest first."""
    return list(SharedLink.objects.filter(job=job).order_by("-id")[: conf.shares_per_job_max + GONE_KEPT])


def revoke(links: Iterable[int]) -> int:
    """By their numbers. Idempotent. Returns how many were valid until now, or at least not revoked."""
    return SharedLink.objects.filter(pk__in=list(links), revoked_at=None).update(revoked_at=Now())


def shown(token: str, *, with_messages: bool = True) -> Shared | None:
    """None: no such link, or it is not valid any more, or its job is gone or erased. Two queries, three at times.

    `with_messages`: what was asked too, which never changes.
    """
    if not conf.share_links or not 0 < len(token) <= TOKEN_CHARS_MAX:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            load("shared"),
            {"hash": hash_key(token), "with_body": with_messages, "chars": TEXT_CHARS_MAX + 1},
        )
        row = cursor.fetchone()
        if row is None:
            return None
        found = dict(zip([column.name for column in cursor.description], row, strict=True))
    if found.pop("is_newly_seen"):
        _note_seen(found["link_id"])
    return _shared(found)


def _shared(found: dict[str, Any]) -> Shared:
    told, note = messages(found["body"], chars=TEXT_CHARS_MAX) if found["body"] else ([], "")
    text = found["text"]
    if len(text) > TEXT_CHARS_MAX:
        text, note = text[:TEXT_CHARS_MAX], f"Shown are the first {TEXT_CHARS_MAX:,} characters of the answer."
    names = ("model", "status", "is_terminal", "epoch", "created_at", "finished_at", "expires_at")
    return Shared(**{name: found[name] for name in names}, messages=told, text=text, note=note)


def _note_seen(link_id: int) -> None:
    with transaction.atomic():
        links = SharedLink.objects.filter(pk=link_id)
        if links.select_for_update(skip_locked=True, no_key=True).exists():
            links.update(last_seen_at=Now())
