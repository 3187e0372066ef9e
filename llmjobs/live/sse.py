"""Server-Sent Events: `GET /api/jobs/{id}/events` and `GET /api/events`, as coroutines that hold neither a thread nor
a connection.

Owns the response. Does not own what is shown (following.py) or to whom (admission.py). Invariant: whatever can be
refused is refused before the response begins, as JSON in the API's error shape; after that a stream only ends, and
`EventSource` resumes it by itself.

A stream of a job ends after its last event. Who comes again after that, as `EventSource` does, gets 204, which tells
it to stop. `GET /api/events` never ends. Its `id:` is a moment, not a number of an event: resuming shows what was
logged since shortly before it, so that nothing is missing, and (job, seq) tells what is shown again. `?since=` (ISO
8601, or milliseconds) begins at any moment.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import wraps
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from llmjobs import limit_headers
from llmjobs.access import Caller
from llmjobs.conf import conf
from llmjobs.live import admission
from llmjobs.live.admission import Refused
from llmjobs.live.following import Batch, follow_feed, follow_job
from llmjobs.live.hub import current_hub
from llmjobs.live.reading import DATABASE_ERRORS
from llmjobs.live.rendering import KEEP_ALIVE
from llmjobs.live.threads import in_thread, release_request_thread
from llmjobs.live.viewers import ViewerDropped
from llmjobs.live.watches import TooManyViewers
from llmjobs.representation import error_body

logger = logging.getLogger(__name__)

RETRY = b"retry: 1000\n\n"  # also what makes the headers go out
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
RETRY_AFTER_S = {429: "5", 503: "2"}

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]
Blocks = AsyncGenerator[bytes, None]
Limits = dict[str, str]  # `x-ratelimit-*`: none until it is known who asks


def _stream(view: Callable[..., Awaitable[Blocks]]) -> View:
    """A view out of a coroutine that gives the blocks of its stream, the first of them at once, and fills in the
    caller's limits.
    """

    @csrf_exempt  # nothing but GET is answered, and that changes nothing
    @transaction.non_atomic_requests  # as waiting.py's is
    @wraps(view)
    async def answer(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
        limits: Limits = {}
        response = await _answer(request, lambda: view(request, limits, *args, **kwargs))
        for header, value in limits.items():
            response[header] = value
        return response

    return answer


async def _answer(request: HttpRequest, begin: Callable[[], Awaitable[Blocks]]) -> HttpResponseBase:
    try:
        if request.method not in ("GET", "HEAD"):
            raise Refused(405, "method_not_allowed", f"Method {request.method} is not allowed here.")
        return await _begun(await begin(), is_head=request.method == "HEAD")
    except Refused as refused:
        return _error(refused)
    except TooManyViewers as error:
        return _error(Refused(429, "too_many_viewers", str(error)))
    except ViewerDropped as error:
        return _error(Refused(503, "unavailable", f"Not just now: {error}."))
    except DATABASE_ERRORS as error:
        logger.warning("event=stream_not_begun error=%r", str(error).strip().partition("\n")[0])
        return _error(Refused(503, "database_unavailable", "The database can't be reached just now."))


@_stream
async def job_events(request: HttpRequest, limits: Limits, job_id: str) -> Blocks:
    after = admission.after_of(request)
    job = await in_thread(lambda: admission.job_of(_admitted(request, limits), job_id))
    batches = follow_job(current_hub(), job, after=after, idle_s=conf.sse_keepalive_s)
    return _job_blocks(batches, admission.site_of(request))


@_stream
async def feed_events(request: HttpRequest, limits: Limits) -> Blocks:
    since_ms = admission.since_of(request)
    caller = await in_thread(_admitted, request, limits)
    batches = follow_feed(current_hub(), caller.client_ids, since_ms=since_ms, idle_s=conf.sse_keepalive_s)
    return _feed_blocks(batches, admission.site_of(request))


def _admitted(request: HttpRequest, limits: Limits) -> Caller:
    caller = admission.caller_of(request, admission.key_in_header(request))
    if caller.client is not None:
        limits.update(limit_headers.of(caller.client))
    return caller


async def _job_blocks(batches: AsyncGenerator[Batch, None], site: str) -> Blocks:
    async with aclosing(batches):
        async for events in batches:
            yield b"".join(event.block(site) for event in events)


async def _feed_blocks(batches: AsyncGenerator[tuple[Batch, int], None], site: str) -> Blocks:
    async with aclosing(batches):
        async for events, mark_ms in batches:
            yield b"".join(event.feed_block(site, mark_ms) for event in events)


async def _begun(blocks: Blocks, *, is_head: bool) -> HttpResponseBase:
    """The response, once the first block is there: what can go wrong has gone wrong by then."""
    try:
        first = await anext(blocks, None)
    except BaseException:
        await blocks.aclose()
        raise
    if first is None:
        return HttpResponse(status=204, headers=HEADERS)
    if is_head:
        await blocks.aclose()
        return HttpResponse(content_type="text/event-stream", headers=HEADERS)
    return StreamingHttpResponse(_body(first, blocks), content_type="text/event-stream", headers=HEADERS)


async def _body(first: bytes, blocks: Blocks) -> Blocks:
    release_request_thread()
    async with aclosing(blocks):
        yield RETRY + first
        try:
            async for block in blocks:
                yield block or KEEP_ALIVE
        except ViewerDropped as dropped:
            logger.info("event=viewer_dropped road=sse reason=%r", str(dropped))
        except DATABASE_ERRORS as error:
            logger.warning("event=stream_ended road=sse error=%r", str(error).strip().partition("\n")[0])


def _error(refused: Refused) -> JsonResponse:
    kind = "server_error" if refused.status >= 500 else "invalid_request_error"
    response = JsonResponse(error_body(refused.code, refused.message, kind, refused.param), status=refused.status)
    if refused.status in RETRY_AFTER_S:
        response["Retry-After"] = RETRY_AFTER_S[refused.status]
    if refused.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if refused.status == 405:
        response["Allow"] = "GET, HEAD"
    return response
