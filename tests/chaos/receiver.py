"""Who is told by webhook: a server on loopback that checks every signature, and behaves as badly as it is asked to.

Owns what it heard. `/hook` is where deliveries go; `/trap` is where its redirects point, and nobody may come there.
Invariant: a delivery counts as heard when its whole body was read, whatever the answer was.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

CLOCK_S = 300  # a receiver refuses older and newer timestamps, as Standard Webhooks has it
HANG_S = 60
KINDS = ("hang", "redirect", "refuse", "error")


@dataclass(slots=True)
class Heard:
    """`ids` counts deliveries by webhook-id; `jobs` has the job that each told of."""

    ids: Counter[str] = field(default_factory=Counter)
    jobs: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)  # what was wrong with a delivery, in words
    answers: Counter[str] = field(default_factory=Counter)
    trapped: int = 0


class Receiver:
    """`secrets` are the clients' webhook secrets: a delivery must be signed with one of them.

    `bad_share`: so many deliveries are not answered, redirected, cut off or answered with 500.
    """

    def __init__(self, secrets: list[str], *, bad_share: float = 0, seed: int = 0) -> None:
        self._keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
        self._dice, self.bad_share = random.Random(seed), bad_share
        self.heard = Heard()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self.listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    def listen(self) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def leave(self) -> None:
        """From now on nobody listens there, and open connections are cut."""
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)

    def close(self) -> None:
        self.leave()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if not head[0].startswith("POST /hook "):
            self.heard.trapped += 1
        else:
            self._hear(headers, body)
        kind = self._dice.choice(KINDS) if self._dice.random() < self.bad_share else "ok"
        self.heard.answers[kind] += 1
        match kind:
            case "hang":
                await asyncio.wait_for(reader.read(), HANG_S)  # until the sender has enough of it
                return False
            case "refuse":
                return False
            case "redirect":
                line = f"302 Found\r\nlocation: {self.url.replace('/hook', '/trap')}"
            case "error":
                line = "500 Internal Server Error"
            case _:
                line = "204 No Content"
        length = "" if line.startswith("204") else "content-length: 0\r\n"
        writer.write(f"HTTP/1.1 {line}\r\n{length}\r\n".encode("latin-1"))
        await writer.drain()
        return True

    def _hear(self, headers: dict[str, str], body: bytes) -> None:
        webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        self.heard.ids[webhook_id] += 1
        signed = f"{webhook_id}.{stamp}.".encode() + body
        mine = {base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys}
        given = {part.removeprefix("v1,") for part in headers.get("webhook-signature", "").split() if part[:3] == "v1,"}
        if not mine & given:
            self.heard.wrong.append(f"{webhook_id}: no signature of it is right")
        if not stamp.isdecimal() or abs(int(stamp) - time.time()) > CLOCK_S:
            self.heard.wrong.append(f"{webhook_id}: webhook-timestamp {stamp!r} at {time.time():.0f}")
        told = json.loads(body)
        self.heard.jobs[webhook_id] = told["data"]["id"]
        if told["type"] != f"job.{told['data']['status']}" or told["object"] != "event":
            self.heard.wrong.append(f"{webhook_id}: {told['type']} of a job that is {told['data']['status']}")
