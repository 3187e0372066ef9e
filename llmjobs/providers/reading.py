"""An answer read off its connection, as a stream or in one piece, and told to viewers as it comes.

Owns the bounds: bytes, and the time between two of them. Does not own framing (`sse.py`) nor shapes (`assembly.py`).
Invariant: what came before an error has been told.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx2

from llmjobs.outcomes import Outcome
from llmjobs.providers.assembly import Assembler, as_sent, parse_json, response_id_of, stream_error
from llmjobs.providers.calls import Call, Deadline
from llmjobs.providers.endings import Truncated
from llmjobs.providers.sse import Splitter
from llmjobs.states import Endpoint

LINGER_S = 0.5  # for the connection's end, once the stream has come to its own
UNFINISHED = ("queued", "in_progress")  # of a response in the background


async def read_answer(call: Call, response: httpx2.Response, deadline: Deadline) -> Outcome:
    """Raises Truncated, StreamError, ValueError, httpx2.HTTPError; closes the response."""
    try:
        if call.assembler is not None and "json" not in response.headers.get("content-type", ""):
            return await _read_stream(call, call.assembler, response, deadline)
        return await _read_body(call, response, deadline)
    finally:
        await response.aclose()


async def _read_stream(call: Call, assembler: Assembler, response: httpx2.Response, deadline: Deadline) -> Outcome:
    splitter, size = Splitter(call.output_bytes_max), 0
    async for chunk in response.aiter_bytes():
        if call.answer is not None:
            continue  # read to the end of the connection, which can be used again then
        if call.first_token_at is None and not call.is_background:
            call.first_token_at = time.monotonic()
        size += len(chunk)
        if size > call.output_bytes_max:
            raise ValueError(f"more than {call.output_bytes_max} bytes")
        _take(call, assembler, splitter.feed(chunk))
        deadline.within(_patience_s(call))
    if call.answer is None and call.response_id is None:  # the rest of one in the background can be asked for
        _take(call, assembler, splitter.close())
    if call.answer is None:
        raise Truncated("expected the stream's own end, got the end of the connection")
    return call.answer


def _patience_s(call: Call) -> float:
    if call.answer is not None:
        return LINGER_S
    return call.timeouts.between_tokens_s if call.first_token_at is not None else call.timeouts.first_token_s


def _note_response(call: Call, assembler: Assembler) -> None:
    """One in the background is announced at once, and may then be queued for long: that is no token yet."""
    call.know_response(assembler.response_id)
    if call.first_token_at is None and assembler.piece_count:
        call.first_token_at = time.monotonic()


def _take(call: Call, assembler: Assembler, events: Iterable[bytes]) -> None:
    """Up to the stream's own end. What came before an error is kept, and told to viewers."""
    texts: list[str] = []
    was_whole = assembler.finish_reason is not None
    try:
        for data in events:
            if data and not assembler.is_finished:
                texts.append(assembler.add(data))
    finally:
        if call.is_background:
            _note_response(call, assembler)
        if text := "".join(texts):
            call.texts.append(text)
        if text or (assembler.finish_reason is not None and not was_whole and not assembler.is_finished):
            call.on_text(text)
    if assembler.is_finished:
        call.complete(assembler.body(), None)


async def _read_body(call: Call, response: httpx2.Response, deadline: Deadline) -> Outcome:
    def heard() -> None:
        if call.first_token_at is None:
            call.first_token_at = time.monotonic()
        deadline.within(call.timeouts.between_tokens_s)

    raw, body = await read_json(call, response, heard)
    if (body.get("error") and call.endpoint != Endpoint.RESPONSES) or body.get("status") == "failed":
        raise stream_error(body.get("error") or {})
    if call.is_background and body.get("status") in UNFINISHED:
        call.know_response(response_id_of(body))
        raise Truncated(f"expected a stream, got a response that is {body['status']}")
    return call.complete(body, as_sent(raw, body))


async def read_json(
    call: Call, response: httpx2.Response, heard: Callable[[], None] = lambda: None
) -> tuple[bytes, dict[str, Any]]:
    """The body as it came and as it reads; `heard` is called as it comes. Closes the response.

    Raises ValueError for what is no JSON object, or too much; httpx2.HTTPError.
    """
    parts, size = [], 0
    try:
        async for chunk in response.aiter_bytes():
            heard()
            parts.append(chunk)
            size += len(chunk)
            if size > call.output_bytes_max:
                raise ValueError(f"more than {call.output_bytes_max} bytes")
    finally:
        await response.aclose()
    raw = b"".join(parts)
    body = parse_json(raw)
    if not isinstance(body, dict):
        raise ValueError("something other than an object")
    return raw, body
