"""`POST /api/jobs/bulk`: jobs as JSON Lines, answered line by line, in order, as they are committed.

Owns the request's whole and the answer's form. Does not own what a line is (`job_lines.py`), nor who is taken
(`intake.py`). Invariant: what refuses the whole (who asks, how it is written, how much it is) does so before any of it
is taken, with a status; after that each line has its own answer, whatever happens to the others or to the database.

The body is on disk before the first line is read, and no more of it is in memory than a batch. While it streams, the
request holds no thread and no connection between two batches; a client that does not read its answers is waited for
there. The batches of all such requests take turns in TURNS threads, so that they leave the others room.
"""

import asyncio
import contextvars
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import NotAcceptable
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from llmjobs import job_lines, tracing
from llmjobs.api.authentication import ApiKeyAuthentication, client_of
from llmjobs.api.bulk_schema import TYPES
from llmjobs.api.errors import answer, request_id
from llmjobs.api.incoming import check_media, declared_bytes, too_large
from llmjobs.api.schema import documented
from llmjobs.api.views import ApiView, JsonOnly
from llmjobs.api.waiting import let_thread_go
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest
from llmjobs.intake import BATCH_JOBS, Intake, Outcome, Taken
from llmjobs.job_lines import JobLine
from llmjobs.models.tenants import Scope

logger = logging.getLogger(__name__)

PIECE_BYTES = 65_536
IN_MEMORY_BYTES = 1024 * 1024  # of a body; a longer one is on disk
TURNS = 2  # batches at once in this process

_turns = ThreadPoolExecutor(max_workers=TURNS, thread_name_prefix="llmjobs-bulk")


class JsonLines(JsonOnly):
    """Errors of the whole are JSON; who takes that and not JSON Lines is not turned away."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> tuple[Any, str]:
        if request._request.get_preferred_type([*TYPES, "application/json"]) is None:
            raise NotAcceptable(f"Expected an Accept header that {TYPES[0]} satisfies.")
        return renderers[0], renderers[0].media_type


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class BulkView(ApiView):
    scopes = {"POST": Scope.SUBMIT}
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JsonLines

    @documented("submit_jobs")
    def post(self, request: Request) -> StreamingHttpResponse:
        intake = Intake(
            client_of(self.caller),
            api_key_id=self.caller.api_key_id,
            traceparent=tracing.parsed(request.headers.get("traceparent")),
        )
        check_media(request._request, TYPES)
        if "Idempotency-Key" in request.headers:  # who sends it believes that nothing is made twice
            raise InvalidRequest("expected an idempotency_key in each line, got one of all", param="Idempotency-Key")
        answers = Answers(_whole(request._request), intake, request._request)
        accepted = request._request.get_preferred_type(list(TYPES)) or TYPES[0]
        return StreamingHttpResponse(answers, content_type=accepted, headers={"X-Accel-Buffering": "no"})


@csrf_exempt  # as DRF's views are: a session is checked by its authentication
@transaction.non_atomic_requests
async def bulk(request: HttpRequest) -> HttpResponseBase:
    response: HttpResponseBase = await sync_to_async(_view)(request)
    if isinstance(response, StreamingHttpResponse) and isinstance(request, ASGIRequest):
        await let_thread_go()
        response.streaming_content = _streamed(response._iterator)  # type: ignore[attr-defined]
    return response


_view = BulkView.as_view()

# For the schema, which asks a URL's callback for its DRF view.
bulk.cls, bulk.initkwargs = BulkView, {}  # type: ignore[attr-defined]


class Answers:
    """An iterator over the answers, a batch at a time; blocking.

    Not a generator: a response that ends early closes those, and one that is at work in its thread can't be.
    """

    def __init__(self, body: IO[bytes], intake: Intake, request: HttpRequest) -> None:
        self._body, self._intake, self._request = body, intake, request
        self._lines = job_lines.read(body)
        self._began_s = time.perf_counter()
        self._counts = {"taken": 0, "replayed": 0, "refused": 0}
        self._failure: dict[str, Any] | None = None  # what ended it, for the rest

    def __iter__(self) -> "Answers":
        return self

    def __next__(self) -> bytes:
        batch = job_lines.batch(self._lines, most=BATCH_JOBS)
        if not batch:
            self._log()
            self.close()
            raise StopIteration
        shown = self._shown(batch)
        self._count(shown)
        return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in shown)

    def close(self) -> None:
        self._body.close()

    def _shown(self, batch: list[JobLine]) -> list[dict[str, Any]]:
        if self._failure is None:
            try:
                ApiKeyAuthentication().authenticate(self._request)  # again: who reads slowly may be here for hours
                outcomes = self._intake.take([(line.asked, line.key) for line in batch])
                pairs = zip(batch, outcomes, strict=True)
                return [_shown(line.number, outcome, self._request) for line, outcome in pairs]
            except Exception as error:  # the status is out: what a view would answer becomes these lines' answer
                self._failure = _error_of(answer(error, self._request))
                return [
                    self._refused(line) if made is None else _shown(line.number, made, self._request)
                    for line, made in zip_longest(batch, self._intake.taken())
                ]
        return [self._refused(line) for line in batch]

    def _refused(self, line: JobLine) -> dict[str, Any]:
        return {"line": line.number, **(self._failure or {})}

    def _count(self, shown: list[dict[str, Any]]) -> None:
        for line in shown:
            kind = "refused" if "error" in line else "replayed" if line.get("idempotent_replayed") else "taken"
            self._counts[kind] += 1

    def _log(self) -> None:
        counted = " ".join(f"{name}={count}" for name, count in self._counts.items())
        took_ms = (time.perf_counter() - self._began_s) * 1000
        logger.info("event=bulk request_id=%s %s took_ms=%.1f", request_id.get(), counted, took_ms)


async def _streamed(answers: Answers) -> AsyncIterator[bytes]:
    run = cast(Callable[..., bytes], contextvars.copy_context().run)  # the request's id, for the log
    batch: Future[bytes] = Future()
    try:
        while block := await asyncio.wrap_future(batch := _turns.submit(run, _next_in_thread, answers)):
            yield block
    finally:  # who goes away may leave a batch at work: it commits, and is the last one
        batch.add_done_callback(lambda _: answers.close())


def _next_in_thread(answers: Answers) -> bytes:
    try:
        return next(answers, b"")
    finally:
        connections.close_all()


def _whole(request: HttpRequest) -> IO[bytes]:
    """The body, at its beginning. Raises RequestTooLarge, and InvalidRequest for too many lines: nothing is taken then.

    A copy: the request's own goes with the request, also under a batch that is at work.
    """
    most_bytes, most_lines = int(conf.bulk_max_bytes), int(conf.bulk_lines_max)
    if (declared := declared_bytes(request) or 0) > most_bytes:
        too_large(f"{declared} bytes", most_bytes)
    body = cast(IO[bytes], SpooledTemporaryFile(max_size=IN_MEMORY_BYTES))  # noqa: SIM115  (goes with who reads it)
    try:
        _copy(request, body, most_bytes, most_lines)
    except Exception:
        body.close()
        raise
    return body


def _copy(request: HttpRequest, body: IO[bytes], most_bytes: int, most_lines: int) -> None:
    size, ends, last = 0, 0, b""
    while piece := request.read(PIECE_BYTES):
        size, ends, last = size + len(piece), ends + piece.count(b"\n"), piece
        if size > most_bytes:
            too_large("more", most_bytes)
        body.write(piece)
    lines = ends + (bool(last) and not last.endswith(b"\n"))
    if lines > most_lines:
        raise InvalidRequest(
            f"expected at most {most_lines:,} lines, got {lines:,}: none of them was taken", code="too_many_lines"
        )
    body.seek(0)


def _shown(number: int, outcome: Outcome, request: HttpRequest) -> dict[str, Any]:
    if isinstance(outcome, Taken):
        shown: dict[str, Any] = {
            "line": number, "id": str(outcome.public_id), "object": "job", "status": outcome.state,
        }  # fmt: skip
        return {**shown, "idempotent_replayed": True} if outcome.is_replay else shown
    return {"line": number, **_error_of(answer(outcome, request))}


def _error_of(response: HttpResponseBase) -> dict[str, Any]:
    """What the same would have been answered by itself: the error, its status, and when to come again."""
    shown = {**json.loads(response.content), "http_status": response.status_code}  # type: ignore[attr-defined]
    if "Retry-After" in response:
        shown["retry_after_s"] = int(response["Retry-After"])
    return shown
