"""Who may watch what, from where on: the same for both roads, an HTTP request and a WebSocket's opening request.

Owns the reading of credentials and of positions, and why they are refused. Does not own who may see which job:
access.py does. Invariant: a job that the caller may not see is refused in the words in which one that does not exist
is.
"""

import math
from datetime import UTC
from importlib import import_module
from io import BytesIO
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime
from django.utils.functional import SimpleLazyObject

from llmjobs.access import Caller, KeyRefused, check_key
from llmjobs.live.following import FollowedJob
from llmjobs.live.threads import in_thread
from llmjobs.models.tenants import Scope

SUBPROTOCOL = "llmjobs"
SEQ_MAX = 2**63 - 1
MOMENT_MAX_MS = 253_402_300_799_999  # the year 9999
LAST_EVENT_ID = "Last-Event-ID"
RESUME_MARGIN_MS = 10_000  # between an event's own time and the commit that made it visible


class Refused(Exception):
    """`status` is HTTP's; a WebSocket is closed with `close_code`."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @property
    def close_code(self) -> int:
        return 4404 if self.status == 401 else 4000 + self.status  # a stranger is not told what there is


# Who asks, and for which job.


def key_in_header(request: HttpRequest) -> str | None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def key_in_subprotocols(subprotocols: list[str]) -> str | None:
    """Browsers can't give a WebSocket headers: the key comes as the second of two subprotocols."""
    return subprotocols[1] if len(subprotocols) == 2 and subprotocols[0] == SUBPROTOCOL else None


def opening_request(scope: dict[str, Any]) -> HttpRequest:
    """A WebSocket's opening request as Django has requests; its user comes from the session, once somebody asks."""
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    request = ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())
    request.user = SimpleLazyObject(lambda: _session_user(request))  # type: ignore[assignment]
    return request


def _session_user(request: HttpRequest) -> AbstractBaseUser | AnonymousUser:
    """Reads the session and never changes it: the browser could not be told a new key, and would be logged out."""
    sessions = import_module(settings.SESSION_ENGINE)
    session: Any = sessions.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    session.cycle_key = session.flush = lambda: None
    request.session = session
    return get_user(request)


def site_of(request: HttpRequest) -> str:
    return f"{request.scheme}://{request.get_host()}"


async def admit(request: HttpRequest, key: str | None) -> Caller:
    """The key's owner, or without one the session's user. Raises Refused, django.db.Error."""
    return await in_thread(caller_of, request, key)


async def identify(request: HttpRequest, key: str | None) -> Caller:
    """Like `admit`, whatever the caller may do."""
    return await in_thread(lambda: _caller(key, request.user))


async def admit_to_job(request: HttpRequest, key: str | None, public_id: str) -> FollowedJob:
    """Raises Refused, django.db.Error."""
    return await in_thread(lambda: job_of(caller_of(request, key), public_id))


# These two ask the database: in a thread.


def caller_of(request: HttpRequest, key: str | None) -> Caller:
    caller = _caller(key, request.user)
    if not caller.can(Scope.READ):
        raise Refused(403, "insufficient_scope", f"This needs the scope {str(Scope.READ)!r}.")
    return caller


def job_of(caller: Caller, public_id: str) -> FollowedJob:
    try:
        jobs = caller.jobs().filter(public_id=UUID(public_id))
    except ValueError:
        raise _no_such_job() from None
    job = jobs.only("id", "public_id", "client_id", "epoch", "state").first()
    if job is None:
        raise _no_such_job()
    return FollowedJob(job.pk, str(job.public_id), job.client_id, job.epoch, job.is_terminal)


def _caller(key: str | None, user: AbstractBaseUser | AnonymousUser) -> Caller:
    if key is not None:
        try:
            return Caller.from_key(check_key(key))
        except KeyRefused as refused:
            raise Refused(401, "invalid_api_key", str(refused)) from None
    if user.is_authenticated:
        return Caller.from_user(user)  # type: ignore[arg-type]
    raise Refused(401, "invalid_api_key", "Expected an API key, or the session of a user who is logged in.")


def _no_such_job() -> Refused:
    return Refused(404, "job_not_found", "There is no such job.", param="id")


# From where on.


def after_of(request: HttpRequest) -> int:
    """The number of the last event seen; 0: none. What the browser remembers wins over what the address says."""
    asked = _number_or_none("after", request.GET.get("after", ""), SEQ_MAX)
    remembered = _number_or_none(LAST_EVENT_ID, request.headers.get(LAST_EVENT_ID, ""), SEQ_MAX)
    return remembered if remembered is not None else asked or 0


def since_of(request: HttpRequest) -> int | None:
    """The moment (unix time, ms) that a feed begins at; None: now. A feed's `id:` is one; it resumes just before."""
    since_ms = _moment_ms(request.GET.get("since", ""))
    resume_ms = _number_or_none("after", request.GET.get("after", ""), MOMENT_MAX_MS)
    remembered_ms = _number_or_none(LAST_EVENT_ID, request.headers.get(LAST_EVENT_ID, ""), MOMENT_MAX_MS)
    if remembered_ms is not None:
        resume_ms = remembered_ms
    return since_ms if resume_ms is None else max(0, resume_ms - RESUME_MARGIN_MS)


def _moment_ms(text: str) -> int | None:
    if not text or text.isdigit():
        return _number_or_none("since", text, MOMENT_MAX_MS)
    try:
        moment = parse_datetime(text.replace(" ", "+"))  # a + that was not escaped
    except ValueError:
        moment = None
    if moment is None:
        raise _malformed("since", "a moment, as ISO 8601 or in milliseconds of unix time", text)
    return max(0, math.floor((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def _number_or_none(name: str, text: str, most: int) -> int | None:
    return _number(name, text, most) if text else None


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= most):
        raise _malformed(name, f"a whole number from 0 to {most}", text)
    return int(text)


def _malformed(name: str, expected: str, got: str) -> Refused:
    return Refused(400, "invalid_value", f"expected {expected}, got {got[:50]!r}", param=name)
