"""Bodies above a bound, refused before anything keeps them: one that declares its length at once, one that does not
(chunked) where it passes the bound.

Owns the bound of every address of the site, `LLMJOBS_BODY_MAX_BYTES` (`LLMJOBS_BULK_MAX_BYTES` for JSON Lines to where
these are taken, for nothing else, and from nobody who is not known), and the answers, 413 and 401 in the API's shape.
Does not own what a view says of a body within its bound. Invariant: the application never gets a part of a body that
was cut and answers it; to it, the client went away. Nothing here or behind it decodes a body (`Content-Encoding`), so
that none grows.

daphne takes a whole body before it asks anybody: daphne_requests.py keeps no more of it than this needs to see.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from django.http import HttpResponse
from django.urls import reverse

from llmjobs.api.bulk_schema import TYPES
from llmjobs.api.errors import DATABASE_UNAVAILABLE, Problem
from llmjobs.conf import conf
from llmjobs.live import admission
from llmjobs.live.backpressure import Application
from llmjobs.live.reading import DATABASE_ERRORS

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def bounded(application: Application) -> Application:
    async def bounded_application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        most = most_bytes(scope["method"], scope["path"], _header(scope, b"content-type"))
        length = _declared_length(scope)
        if (length or 0) > most:
            await _refuse(send, too_large(most))
        elif is_for_known(length, most) and (problem := await why_unknown(scope["headers"])) is not None:
            await _refuse(send, problem)
        else:
            exchange = _Exchange(receive, send, most)
            await application(scope, exchange.receive, exchange.send)
            if exchange.is_cut and not exchange.is_answered:
                await _refuse(send, too_large(most))

    return bounded_application


def most_bytes(method: str, path: str, content_type: bytes) -> int:
    """`path`: unquoted. A form is never long: servers take those apart in memory."""
    kind = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    is_bulk = method == "POST" and kind in TYPES and path == reverse("llmjobs-api:bulk")
    return int(conf.bulk_max_bytes if is_bulk else conf.body_max_bytes)


def is_for_known(length: int | None, most: int) -> bool:
    """Whether a body may be longer than strangers may send. `length` None: it is not said."""
    return most > conf.body_max_bytes and (length is None or length > conf.body_max_bytes)


async def why_unknown(headers: Iterable[tuple[bytes, bytes]]) -> Problem | None:
    """Why nobody is known by these headers of a request; None: somebody is."""
    credentials = [header for header in headers if header[0] in (b"authorization", b"cookie")]
    request = admission.opening_request({"path": "/", "headers": credentials})
    try:
        await admission.identify(request, admission.key_in_header(request))
    except admission.Refused as refused:
        return Problem(refused.status, refused.code, refused.message, headers={"WWW-Authenticate": "Bearer"})
    except DATABASE_ERRORS:
        return DATABASE_UNAVAILABLE
    return None


def too_large(most: int) -> Problem:
    return Problem(413, "request_too_large", f"A body may have {most} bytes, and this has more.")


def refusal(problem: Problem) -> HttpResponse:
    """The answer to who shall not send its body, logged."""
    response = problem.response()
    request_id = f"req_{secrets.token_hex(12)}"
    for name, value in {"x-request-id": request_id, "Cache-Control": "no-store", "Connection": "close"}.items():
        response[name] = value
    logger.info("event=body_refused request_id=%s status=%d", request_id, problem.status)
    return response


class _Exchange:
    """`receive` and `send` of one request, which count its body."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._room = receive, send, most
        self.is_cut = self.is_answered = False

    async def receive(self) -> Message:
        if self.is_cut:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._room -= len(message.get("body", b""))
        if self._room < 0:
            self.is_cut = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.is_cut and not self.is_answered:
            return  # it answers a client that it believes to be gone
        self.is_answered = True
        await self._send(message)


def _declared_length(scope: Message) -> int | None:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else None


def _header(scope: Message, name: bytes) -> bytes:
    """The first of that name; empty: none."""
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


async def _refuse(send: Send, problem: Problem) -> None:
    response = refusal(problem)
    headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
    headers.append((b"content-length", str(len(response.content)).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
