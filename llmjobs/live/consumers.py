"""WebSockets: `/ws/jobs/{id}/`, `/ws/jobs/`, `/ws/queue/`. They only speak; what a client sends is ignored.

Owns the connection's life and its close codes. Does not own what is shown (following.py) or to whom (admission.py).
Invariant: a connection is accepted before it is refused, because browsers see a close code only then.

1000  the job ended, its `done` was sent      4408  too slow, or here for an hour: resume with `?after=` the last `seq`
4400  `after` or `since` is malformed         4413  a message too long
4403  the key has no scope to read            4429  too many viewers of this client
4404  a stranger; or no such job              4503  the database is away: come again
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import DisallowedHost

from llmjobs.live import admission
from llmjobs.live.admission import Refused
from llmjobs.live.following import follow_feed, follow_job
from llmjobs.live.hub import current_hub
from llmjobs.live.reading import DATABASE_ERRORS
from llmjobs.live.statistics import follow_statistics
from llmjobs.live.viewers import ViewerDropped
from llmjobs.live.watches import TooManyViewers

logger = logging.getLogger(__name__)

MESSAGE_CHARS_MAX = 4096
IDLE_S = 60.0  # the server's own pings keep the line open

Scope = dict[str, Any]
Frames = AsyncGenerator[Iterable[str], None]


class LiveConsumer(AsyncWebsocketConsumer):
    """Sends what `frames` gives for the connection's scope, then closes."""

    def __init__(self, frames: Callable[[Scope], Frames]) -> None:
        super().__init__()
        self._frames = frames
        self._sending: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """However the connection ends, also when the server cancels it, its viewer leaves the hub."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._sending is not None:
                self._sending.cancel()
                await asyncio.wait([self._sending])

    async def connect(self) -> None:
        offered = self.scope.get("subprotocols") or []
        await self.accept(subprotocol=admission.SUBPROTOCOL if admission.SUBPROTOCOL in offered else None)
        self._sending = asyncio.create_task(self._send_all())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if len(text_data or bytes_data or "") > MESSAGE_CHARS_MAX:
            await self.close(code=4413, reason=f"expected no messages, got one longer than {MESSAGE_CHARS_MAX}")

    async def _send_all(self) -> None:
        code, reason = 1000, ""
        try:
            async with aclosing(self._frames(self.scope)) as batches:
                async for batch in batches:
                    for frame in batch:
                        await self.base_send({"type": "websocket.send", "text": frame})
        except Exception as error:  # whatever it is, the browser must see an end
            code, reason = _ending(error)
        with suppress(OSError, RuntimeError):  # the client has gone already; servers differ in how they say so
            await self.close(code=code, reason=reason)


def _ending(error: Exception) -> tuple[int, str]:
    """Close code and reason (up to 123 bytes)."""
    match error:
        case Refused():
            code, reason = error.close_code, error.message
        case ViewerDropped():
            code, reason = 4408, str(error)
        case TooManyViewers():
            code, reason = 4429, str(error)
        case DisallowedHost():
            code, reason = 4400, "the Host header names no host of this site"
        case _ if isinstance(error, DATABASE_ERRORS):
            code, reason = 4503, "the database can't be reached just now"
        case _:
            logger.error("event=viewer_failed road=websocket", exc_info=error)
            code, reason = 1011, "the server had an error"
    if code != 1011:  # a refusal's words quote what was asked for
        why = error.code if isinstance(error, Refused) else reason
        logger.info("event=viewer_ended road=websocket code=%d reason=%r", code, why)
    return code, reason.encode()[:123].decode(errors="ignore")


async def job_frames(scope: Scope) -> Frames:
    request = admission.opening_request(scope)
    after, site = admission.after_of(request), admission.site_of(request)
    job = await admission.admit_to_job(request, _key(scope), scope["url_route"]["kwargs"]["job_id"])
    async with aclosing(follow_job(current_hub(), job, after=after, idle_s=IDLE_S)) as batches:
        async for events in batches:
            yield [event.frame(site) for event in events]


async def feed_frames(scope: Scope) -> Frames:
    request = admission.opening_request(scope)
    since_ms, site = admission.since_of(request), admission.site_of(request)
    caller = await admission.admit(request, _key(scope))
    async with aclosing(follow_feed(current_hub(), caller.client_ids, since_ms=since_ms, idle_s=IDLE_S)) as batches:
        async for events, _ in batches:
            yield [event.feed_frame(site) for event in events]


async def queue_frames(scope: Scope) -> Frames:
    caller = await admission.admit(admission.opening_request(scope), _key(scope))
    if not caller.sees_statistics:
        raise Refused(404, "not_found", "There is nothing at this address.")
    async with aclosing(follow_statistics()) as statistics:
        async for text in statistics:
            yield [text]


def _key(scope: Scope) -> str | None:
    return admission.key_in_subprotocols(scope.get("subprotocols") or [])
