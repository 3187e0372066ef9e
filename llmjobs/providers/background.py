"""Responses that go on at the provider without a connection: found again by their id, followed, cancelled.

Owns which calls ask for that, and the requests beside the one that begins a response. Does not own when to ask
(`openai.py`). Source: OpenAI's guide to background mode: `background` needs `store`, which is the default; each event
has a `sequence_number`, after which a stream can be asked for again; a cancel is idempotent.
Invariant: nothing here begins a response, so nothing here is paid for.
"""

import asyncio
import logging
from typing import Any

import httpx2
import openai

from llmjobs.outcomes import Kind, Usage, classify
from llmjobs.providers.assembly import as_sent, storable, stream_error, tokens_of
from llmjobs.providers.calls import Call, Deadline
from llmjobs.providers.connections import headers_of
from llmjobs.providers.reading import UNFINISHED, read_json
from llmjobs.states import Endpoint

logger = logging.getLogger("llmjobs.attempt")

CANCEL_WITHIN_S = 2.0  # so long a cancelled job keeps its slot for a provider that does not answer
GONE = (400, 404, 405, 410, 422, 501)  # it is kept for some ten minutes, or can't be looked up at all
FINISHED = ("completed", "incomplete")


def is_wanted(call: Call, body: dict[str, Any]) -> bool:
    """Whether the provider can do it, and the request asks for nothing that excludes it."""
    can_be = call.has_background and call.endpoint == Endpoint.RESPONSES
    return can_be and all(body.get(name) is not False for name in ("background", "store", "stream"))


async def pick_up(client: openai.AsyncOpenAI, call: Call, deadline: Deadline) -> httpx2.Response | None:
    """The stream of the response that an attempt before began. None: the call is answered, or must be made anew.

    Raises as `find`.
    """
    await find(client, call, deadline)
    if call.answer is not None or call.response_id is None:
        return None
    try:
        return await follow(client, call)
    except openai.APIStatusError as error:
        if error.status_code not in GONE:
            raise
        await cancel(client, call)  # it can't be followed, and must not be paid beside the next
        if call.answer is None:
            _make_anew(call, f"no stream, status {error.status_code}")
        return None


async def find(client: openai.AsyncOpenAI, call: Call, deadline: Deadline) -> None:
    """Look how the response stands that an attempt before began.

    Afterwards the call is answered, or its `response_id` is one that goes on, or there is none: it must be made anew.
    Raises openai.APIError, httpx2.HTTPError and ValueError if the provider does not say; StreamError if it failed for
    a reason that another call would not change.
    """
    call.know_response(call.resume_id)
    try:
        raw, body = await _get(client, call, deadline)
    except openai.APIStatusError as error:
        if error.status_code not in GONE:
            raise
        _make_anew(call, f"status {error.status_code}")
        return
    status = body.get("status")
    if status in FINISHED:
        call.complete(body, as_sent(raw, body))
    elif status not in UNFINISHED:
        failed = stream_error(body.get("error") or {})
        if status == "failed" and classify(None, failed.code) is Kind.DETERMINISTIC:
            raise failed
        _make_anew(call, str(status)[:32])


async def follow(client: openai.AsyncOpenAI, call: Call, *, after: int | None = None) -> httpx2.Response:
    """Its stream: from its start, or behind the event with this number. Raises openai.APIError."""
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    return await _open(client, call, params)


async def cancel(client: openai.AsyncOpenAI, call: Call) -> None:
    """Nobody will come back for it: let the bill stop. What it used until then is in the answer, if it says so.

    It may have ended in the meantime: then that is the call's answer. Raises nothing, and takes a bounded time.
    """
    call.is_over = True
    try:
        async with asyncio.timeout(CANCEL_WITHIN_S):
            response = await client.post(
                f"/responses/{call.response_id}/cancel",
                cast_to=httpx2.Response,
                options={"headers": headers_of(call), "timeout": _timeout(CANCEL_WITHIN_S)},
                stream=True,
            )
            raw, body = await read_json(call, response)
    except (openai.APIError, httpx2.HTTPError, ValueError, TimeoutError) as error:
        words = "event=response_not_cancelled attempt=%s reason=%s"
        logger.warning(words, call.request_id, type(error).__name__)
        return
    if body.get("status") == "completed":
        call.complete(body, as_sent(raw, body))
    elif usage := tokens_of(body.get("usage")):
        call.told_usage = Usage(*usage, raw=storable(body.get("usage")))


async def _get(client: openai.AsyncOpenAI, call: Call, deadline: Deadline) -> tuple[bytes, dict[str, Any]]:
    response = await _open(client, call, {})
    return await read_json(call, response, heard=lambda: deadline.within(call.timeouts.first_token_s))


async def _open(client: openai.AsyncOpenAI, call: Call, params: dict[str, str]) -> httpx2.Response:
    response = await client.get(
        f"/responses/{call.response_id}",
        cast_to=httpx2.Response,
        options={"headers": headers_of(call), "timeout": _timeout(call.timeouts.connect_s), "params": params},
        stream=True,
    )
    call.provider_request_id = call.provider_request_id or (response.headers.get("x-request-id") or "")[:255] or None
    return response


def _timeout(connect_s: float) -> httpx2.Timeout:
    return httpx2.Timeout(None, connect=connect_s)


def _make_anew(call: Call, why: str) -> None:
    logger.info("event=response_gone attempt=%s found=%r: called anew", call.request_id, why)
    call.response_id, call.is_over, call.told_usage = None, False, None
