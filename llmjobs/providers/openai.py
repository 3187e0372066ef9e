"""A call to an OpenAI-compatible provider, through the `openai` SDK's own low-level `post`.

The SDK brings auth, base URL, transport and the reading of errors; what it would make of an answer (an object a token)
is left out: bytes are split by `sse.py` and put together by `assembly.py`. Retries are rows here, so the SDK's are off.
Everything that can happen is returned as an `Outcome`; only the task's own cancellation passes through.
"""

import asyncio
import json
import math
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from llmjobs.outcomes import MESSAGE_CHARS_MAX, Error, Kind, Outcome, Told, Usage, classify
from llmjobs.providers.assembly import (
    Assembler,
    StreamError,
    as_sent,
    assembler_for,
    dump_json,
    parse_json,
    storable,
    stream_error,
    text_of,
    tokens_of,
)
from llmjobs.providers.headers import retry_after_s, told
from llmjobs.providers.sse import Splitter
from llmjobs.states import Endpoint

# The transport looks at each connection of its pool, with a system call, for each request: with 64 in one pool that was
# a quarter of all the time of a worker. Many small pools cost some 50 kB each.
CONNECTIONS_PER_CLIENT = 8
LINGER_S = 0.5  # for the connection's end, once the stream has come to its own
CODE_CHARS_MAX = 128
NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total_s` is the job's own, the others are settings."""

    connect_s: float
    first_token_s: float
    between_tokens_s: float
    total_s: float


@dataclass(slots=True)
class Call:
    """One call, and what is known of it while it runs: what a cancel leaves behind is read from here."""

    endpoint: str
    base_url: str
    api_key: str
    model: str
    body: str  # JSON object as text, without model
    request_id: str  # <job>.<attempt>
    timeouts: Timeouts
    output_bytes_max: int
    est_input_tokens: int
    on_text: Callable[[str], None]
    keeps_partial: bool = False  # of a stream that breaks, what had come shall be its answer
    on_told: Callable[[Told], None] = lambda told: None  # once, as soon as the answer's headers are there
    told: Told | None = None
    sent_at: float | None = None  # time.monotonic()
    first_token_at: float | None = None
    provider_request_id: str | None = None
    assembler: Assembler | None = None
    texts: list[str] = field(default_factory=list)
    answer: Outcome | None = None  # once it is complete: it wins over a cancel that comes while the connection closes

    def ended(self, kind: Kind, **details: Any) -> Outcome:
        """The outcome of this call, with its times and, after a break, what had come until then."""
        now = time.monotonic()
        if kind is not Kind.COMPLETED:
            details.setdefault("output_text", "".join(self.texts))
            details.setdefault("usage", self._usage_until_now(kind))
            if self.keeps_partial and self.assembler is not None and self.texts:
                details.setdefault("partial", dump_json(self.assembler.interrupted("".join(self.texts))))
        return Outcome(
            kind,
            provider_request_id=self.provider_request_id,
            sent_ago_s=None if self.sent_at is None else now - self.sent_at,
            first_token_ago_s=None if self.first_token_at is None else now - self.first_token_at,
            told=self.told,
            **details,
        )

    def hear(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer is there: who answered which call, and what it says of the provider's limits."""
        self.provider_request_id = (headers.get("x-request-id") or "")[:255] or None
        self.told = told(headers, status=status)
        self.on_told(self.told)

    def _usage_until_now(self, kind: Kind) -> Usage | None:
        if self.assembler is not None and self.assembler.piece_count:
            return Usage(self.est_input_tokens, self.assembler.piece_count)
        is_sent = self.sent_at is not None and kind in (
            Kind.UNKNOWN,
            Kind.CANCELLED,
            Kind.RELEASED,
            Kind.UNRECOGNISED,
        )
        return None if is_sent else Usage(0, 0)


class OpenAIProviders:
    """The SDK's clients of a worker: for each account many, of a few connections each, with one TLS context."""

    def __init__(self, *, calls_max: int) -> None:
        self._client_count = max(1, math.ceil(calls_max / CONNECTIONS_PER_CLIENT))
        self._clients: dict[tuple[str, str], list[openai.AsyncOpenAI]] = {}
        self._turn = 0
        self._tls = httpx2.create_ssl_context()

    async def run(self, call: Call) -> Outcome:
        """Make the call. The task's cancellation is the only exception that leaves here."""
        if not (call.api_key.isascii() and call.api_key.isprintable()):
            words = "expected the provider's key to be printable ASCII, which a header can carry"
            return call.ended(Kind.PROVIDER_REFUSED, error=Error("api_key_unusable", words))
        outcome = await self._outcome(call)
        # An answer that has come to its own end stands, whatever becomes of its connection then.
        return call.answer or outcome

    async def _outcome(self, call: Call) -> Outcome:
        deadline = asyncio.timeout(None)
        try:
            async with deadline:
                return await self._run(call, deadline)
        except TimeoutError:
            return call.ended(Kind.UNKNOWN, error=Error("timeout", _late(call)))
        except openai.APIStatusError as error:
            return _refused(call, error.response.status_code, error.response.headers, error.response.content)
        except openai.APIConnectionError as error:
            return _disconnected(call, error.__cause__ or error)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return _disconnected(call, error)
        except StreamError as error:
            code = (error.code or "stream_error")[:CODE_CHARS_MAX]
            return call.ended(classify(None, error.code), error=Error(code, _short(error.message)))
        except ValueError as error:
            return call.ended(Kind.UNKNOWN, error=Error("malformed_response", _short(f"expected JSON, got: {error}")))

    async def _run(self, call: Call, deadline: asyncio.Timeout) -> Outcome:
        body: dict[str, Any] = {"model": call.model} | json.loads(call.body)
        assembler: Assembler | None = None
        if call.endpoint != Endpoint.EMBEDDINGS and body.get("stream") is not False:
            body["stream"] = True
            call.assembler = assembler = assembler_for(call.endpoint)
            if call.endpoint == Endpoint.CHAT:
                body["stream_options"] = {"include_usage": True} | (body.get("stream_options") or {})
        clock, timeouts = asyncio.get_running_loop().time, call.timeouts
        ends_at = clock() + timeouts.total_s
        deadline.reschedule(min(ends_at, clock() + timeouts.first_token_s))
        call.sent_at = time.monotonic()
        response = await self._client(call).post(
            call.endpoint.removeprefix("/v1"),
            cast_to=httpx2.Response,
            body=body,
            options={
                "headers": {"X-Client-Request-Id": call.request_id},
                "timeout": httpx2.Timeout(None, connect=timeouts.connect_s),
            },
            stream=True,
        )
        try:
            call.hear(response.status_code, response.headers)
            if assembler is not None and "json" not in response.headers.get("content-type", ""):
                return await self._read_stream(call, assembler, response, deadline, ends_at)
            return await self._read_body(call, response, deadline, ends_at)
        finally:
            await response.aclose()

    async def _read_stream(
        self, call: Call, assembler: Assembler, response: httpx2.Response, deadline: asyncio.Timeout, ends_at: float
    ) -> Outcome:
        splitter = Splitter(call.output_bytes_max)
        clock, between_s, size = asyncio.get_running_loop().time, call.timeouts.between_tokens_s, 0
        async for chunk in response.aiter_bytes():
            if call.answer is not None:
                continue  # read to the end of the connection, which can be used again then
            if call.first_token_at is None:
                call.first_token_at = time.monotonic()
            size += len(chunk)
            if size > call.output_bytes_max:
                raise ValueError(f"more than {call.output_bytes_max} bytes")
            self._take(call, assembler, splitter.feed(chunk))
            deadline.reschedule(min(ends_at, clock() + (between_s if call.answer is None else LINGER_S)))
        if call.answer is None:
            self._take(call, assembler, splitter.close())
        return call.answer or call.ended(
            Kind.UNKNOWN,
            error=Error("stream_truncated", "expected the stream's own end, got the end of the connection"),
        )

    def _take(self, call: Call, assembler: Assembler, events: Iterable[bytes]) -> None:
        """Up to the stream's own end. What came before an error is kept, and told to viewers."""
        texts: list[str] = []
        was_whole = assembler.finish_reason is not None
        try:
            for data in events:
                if data and not assembler.is_finished:
                    texts.append(assembler.add(data))
        finally:
            if text := "".join(texts):
                call.texts.append(text)
            if text or (assembler.finish_reason is not None and not was_whole and not assembler.is_finished):
                call.on_text(text)
        if assembler.is_finished:
            _completed(call, assembler.body(), None)

    async def _read_body(
        self, call: Call, response: httpx2.Response, deadline: asyncio.Timeout, ends_at: float
    ) -> Outcome:
        parts, size, clock = [], 0, asyncio.get_running_loop().time
        async for chunk in response.aiter_bytes():
            if call.first_token_at is None:
                call.first_token_at = time.monotonic()
            parts.append(chunk)
            size += len(chunk)
            if size > call.output_bytes_max:
                raise ValueError(f"more than {call.output_bytes_max} bytes")
            deadline.reschedule(min(ends_at, clock() + call.timeouts.between_tokens_s))
        raw = b"".join(parts)
        body = parse_json(raw)
        if not isinstance(body, dict):
            raise ValueError("something other than an object")
        if (body.get("error") and call.endpoint != Endpoint.RESPONSES) or body.get("status") == "failed":
            raise stream_error(body.get("error") or {})
        outcome = _completed(call, body, as_sent(raw, body))
        if outcome.output_text:
            call.on_text(outcome.output_text)
        return outcome

    def _client(self, call: Call) -> openai.AsyncOpenAI:
        account = (call.base_url, call.api_key)
        clients = self._clients.get(account)
        if clients is None:
            clients = self._clients[account] = [_new_client(call, self._tls) for _ in range(self._client_count)]
        self._turn += 1
        return clients[self._turn % len(clients)]

    async def close(self) -> None:
        for clients in self._clients.values():
            for client in clients:
                await client.close()


def _new_client(call: Call, tls: ssl.SSLContext) -> openai.AsyncOpenAI:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS_PER_CLIENT)
    return openai.AsyncOpenAI(
        api_key=call.api_key or "none",
        base_url=call.base_url,
        max_retries=0,
        organization="",
        project="",
        http_client=openai.DefaultAsyncHttpxClient(limits=limits, verify=tls, follow_redirects=False),
    )


def _completed(call: Call, body: dict[str, Any], raw: str | None) -> Outcome:
    usage = tokens_of(body.get("usage"))
    if usage is None:
        pieces = call.assembler.piece_count if call.assembler is not None else 0
        usage = (call.est_input_tokens, pieces)
    call.answer = call.ended(
        Kind.COMPLETED,
        output=raw if raw is not None else dump_json(body),
        output_text="".join(call.texts) or text_of(call.endpoint, body),
        usage=Usage(*usage, raw=storable(body.get("usage"))),
    )
    return call.answer


def _refused(call: Call, status: int, headers: Mapping[str, str], content: bytes) -> Outcome:
    """An answer with an error's status: what it means is for `classify` to say."""
    call.hear(status, headers)
    code, message = None, ""
    try:
        body = parse_json(content)
        detail = body.get("error", body) if isinstance(body, dict) else {}
        if isinstance(detail, dict):
            code, message = detail.get("code") or detail.get("type"), detail.get("message") or ""
    except ValueError:
        message = content[:200].decode("utf-8", "replace")
    kind = classify(status, None if code is None else str(code))
    if kind is Kind.REJECTED and status == 429 and str(message).lower().startswith("request too large"):
        kind = Kind.DETERMINISTIC  # larger than the whole limit, in OpenAI's words: no time is the right one
    said = _short(str(message) or f"HTTP status {status}")
    error = Error(str(code or f"http_{status}")[:CODE_CHARS_MAX], said, status)
    return call.ended(kind, error=error, retry_after_s=retry_after_s(headers))


def _disconnected(call: Call, error: BaseException) -> Outcome:
    name, said = type(error).__name__, _short(str(error))
    if isinstance(error, NOT_SENT):
        return call.ended(Kind.NOT_SENT, error=Error("connection_failed", f"{name}: {said}"))
    return call.ended(Kind.UNKNOWN, error=Error("connection_lost", f"{name}: {said}"))


def _late(call: Call) -> str:
    ran_s = time.monotonic() - (call.sent_at or time.monotonic())
    if ran_s >= call.timeouts.total_s - 0.001:
        return f"expected the whole answer within {call.timeouts.total_s:g} s"
    if call.first_token_at is None:
        return f"expected the first token within {call.timeouts.first_token_s:g} s"
    return f"expected the next token within {call.timeouts.between_tokens_s:g} s"


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"
