"""Calls to an OpenAI-compatible provider, through the `openai` SDK's own low-level `post` and `get`.

The SDK brings auth, base URL, transport and the reading of errors; what it would make of an answer (an object a token)
is left out: bytes are split by `sse.py` and put together by `assembly.py`. Retries are rows here, so the SDK's are off.
Owns the clients and the order of a call's requests. Everything that can happen is returned as an `Outcome`; only the
task's own cancellation passes through.
"""

import asyncio
import json
import logging
import math
import time
from typing import Any

import httpx2
import openai

from llmjobs.outcomes import Error, Kind, Outcome
from llmjobs.providers import background
from llmjobs.providers.assembly import ResponsesAssembler, assembler_for
from llmjobs.providers.calls import Call, Deadline
from llmjobs.providers.connections import CONNECTIONS_PER_CLIENT, headers_of, new_client
from llmjobs.providers.endings import EXPECTED, Truncated, judged
from llmjobs.providers.reading import read_answer
from llmjobs.states import Endpoint

logger = logging.getLogger("llmjobs.attempt")


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
        try:
            outcome = await self._outcome(call)
        except asyncio.CancelledError:
            if call.is_unwanted():
                await self._give_up(call)
            raise
        # An answer that has come to its own end stands, whatever becomes of its connection then.
        return call.answer or outcome

    async def _outcome(self, call: Call) -> Outcome:
        deadline = Deadline(call.timeouts)
        try:
            async with deadline.timeout:
                return await self._run(call, deadline)
        except EXPECTED as error:
            end = judged(call, error, is_total=deadline.is_total)
            # Whoever stood still may not be its holder any more: its response is not for it to end.
            is_break = end.is_break or (isinstance(error, TimeoutError) and deadline.is_long_past)
            if not (is_break and call.goes_on(end.kind)):
                await self._give_up(call)
            return call.ended(end.kind, error=end.error, retry_after_s=end.retry_after_s)

    async def _run(self, call: Call, deadline: Deadline) -> Outcome:
        body, client = _body_of(call), self._client(call)
        call.sent_at = time.monotonic()
        response = None
        if call.is_background and call.resume_id is not None:
            response = await background.pick_up(client, call, deadline)
            if call.answer is not None:
                return call.answer
        if response is None:
            response = await self._begin(client, call, body)
        try:
            return await read_answer(call, response, deadline)
        except (Truncated, httpx2.HTTPError) as broken:
            if call.response_id is None or call.answer is not None:
                raise
            return await self._reconnect(client, call, deadline, broken)

    async def _begin(self, client: openai.AsyncOpenAI, call: Call, body: dict[str, Any]) -> httpx2.Response:
        response = await client.post(
            call.endpoint.removeprefix("/v1"),
            cast_to=httpx2.Response,
            body=body,
            options={
                "headers": headers_of(call) | ({"traceparent": call.traceparent} if call.traceparent else {}),
                "timeout": httpx2.Timeout(None, connect=call.timeouts.connect_s),
            },
            stream=True,
        )
        call.hear(response.status_code, response.headers)
        return response

    async def _reconnect(
        self, client: openai.AsyncOpenAI, call: Call, deadline: Deadline, broken: Exception
    ) -> Outcome:
        """Once: what the response said since. The next time it is for another attempt to find it."""
        after = call.assembler.continue_after() if isinstance(call.assembler, ResponsesAssembler) else None
        logger.info("event=reconnecting attempt=%s after=%s reason=%s", call.request_id, after, type(broken).__name__)
        try:
            response = await background.follow(client, call, after=after)
        except openai.APIError as error:
            call.is_over = isinstance(error, openai.APIStatusError) and error.status_code in background.GONE
            raise broken from error
        return await read_answer(call, response, deadline)

    async def _give_up(self, call: Call) -> None:
        """Nobody waits for its response any more."""
        if call.response_id is not None and not call.is_over:
            await background.cancel(self._client(call), call)

    def _client(self, call: Call) -> openai.AsyncOpenAI:
        account = (call.base_url, call.api_key)
        clients = self._clients.get(account)
        if clients is None:
            clients = self._clients[account] = [new_client(call, self._tls) for _ in range(self._client_count)]
        self._turn += 1
        return clients[self._turn % len(clients)]

    async def close(self) -> None:
        for clients in self._clients.values():
            for client in clients:
                await client.close()


def _body_of(call: Call) -> dict[str, Any]:
    """What is sent: the request as it came, streamed unless it refuses that."""
    body: dict[str, Any] = {"model": call.model} | json.loads(call.body)
    if call.endpoint != Endpoint.EMBEDDINGS and body.get("stream") is not False:
        body["stream"] = True
        call.assembler = assembler_for(call.endpoint, body.get("n"))
        if call.endpoint == Endpoint.CHAT:
            body["stream_options"] = {"include_usage": True} | (body.get("stream_options") or {})
    if background.is_wanted(call, body):
        body["background"] = call.is_background = True
    return body
