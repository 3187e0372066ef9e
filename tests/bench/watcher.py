"""Follows streams of stamped jobs as so many browsers do, and tells how old each token was when it came.

python -m tests.bench.watcher HOST:PORT, with a line of JSON as its input: [[job's id, key, "ws" or "sse"], …]

Prints "watching" once each stream has brought a token. A second line, "from AT to AT" (unix time), says which tokens
count, by their stamps. Ends when all streams have, and prints {"ages_ms": {whole ms: tokens}, "tokens": [of each
stream], "broken": [why]}.

Sockets and bytes alone: a thousand streams take little of the processor that they share with what is measured. A
stamp is found in the bytes as they come, whatever the framing around it.
"""

import asyncio
import base64
import json
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence

STAMP = re.compile(rb"(\d{10}\.\d{6}) ")
STAMP_BYTES = 18  # with the space behind it, which tells that it is whole
DONE = re.compile(rb'event: done|"type": "done"')
PING, PONG, CLOSE = 0x9, 0xA, 0x8
AT_ONCE = 20  # streams that are being opened
WITHIN_S = 30


class Count:
    """What all streams saw together; tokens count whose stamp is from `since` on, and before `until`."""

    def __init__(self) -> None:
        self.since = self.until = math.inf
        self.ages_ms: Counter[int] = Counter()


class Stream(asyncio.Protocol):
    """One viewer. `tokens`: how many it saw; `broken`: why it is no whole stream, or nothing."""

    def __init__(self, count: Count, address: str, job: str, key: str, road: str) -> None:
        self._count, self._address, self._job, self._key, self._is_ws = count, address, job, key, road == "ws"
        self._rest, self._frames, self._last = b"", b"", 0.0
        self._has_head = self._is_done = False
        self.tokens, self.broken = 0, ""
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(self._request())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if not self._has_head:
            data = self._without_head(data)
        if self._is_ws:
            data = self._without_frames(data)
        text, end = self._rest + data, 0
        if (done := DONE.search(text)) is not None or self._is_done:  # it has the whole text again
            text, self._is_done = text[: done.start() if done else 0], True
        for found in STAMP.finditer(text):
            self._token(float(found[1]), now)
            end = found.end()
        self._rest = text[max(end, len(text) - STAMP_BYTES) :]

    def connection_lost(self, error: Exception | None) -> None:
        self.began.set()
        self.ended.set()

    def _token(self, at: float, now: float) -> None:
        if at < self._last:
            self.broken = "a token came twice, or out of order"
        self._last = at
        self.tokens += 1
        self.began.set()
        if self._count.since <= at < self._count.until:
            self._count.ages_ms[math.ceil((now - at) * 1000)] += 1

    def _request(self) -> bytes:
        path = f"/ws/jobs/{self._job}/" if self._is_ws else f"/api/jobs/{self._job}/events"
        lines = [f"GET {path} HTTP/1.1", f"Host: {self._address}"]
        if self._is_ws:
            nonce = base64.b64encode(os.urandom(16)).decode()
            lines += ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            lines += [f"Sec-WebSocket-Key: {nonce}", f"Sec-WebSocket-Protocol: llmjobs, {self._key}"]
        else:
            lines += [f"Authorization: Bearer {self._key}", "Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode()

    def _without_head(self, data: bytes) -> bytes:
        self._rest += data
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if not end:
            return b""
        status = head.split(b" ", 2)[1].decode()
        if status != ("101" if self._is_ws else "200"):
            self.broken = f"status {status}"
        self._has_head, self._rest = True, b""
        return body

    def _without_frames(self, data: bytes) -> bytes:
        """The payloads of whole frames; a ping is answered."""
        self._frames += data
        found, at, seen = [], 0, self._frames
        while len(seen) >= at + 2:
            code, length, start = seen[at] & 0xF, seen[at + 1], at + 2
            if length >= 126:
                width = 2 if length == 126 else 8
                length, start = int.from_bytes(seen[start : start + width], "big"), start + width
            if len(seen) < start + length:
                break
            at = start + length
            if code == PING:
                self._pong(seen[start:at])
            elif code == CLOSE:
                self._transport.close()
            else:
                found.append(seen[start:at])
        self._frames = seen[at:]
        return b"".join(found)

    def _pong(self, payload: bytes) -> None:
        """Masked with zeros."""
        self._transport.write(bytes([0x80 | PONG, 0x80 | len(payload), 0, 0, 0, 0]) + payload)  # type: ignore[attr-defined]


async def main(address: str) -> None:
    loop, count = asyncio.get_running_loop(), Count()
    host, _, port = address.partition(":")
    wanted: Sequence[Sequence[str]] = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    streams = [Stream(count, address, *one) for one in wanted]
    gate = asyncio.Semaphore(AT_ONCE)

    async def begin(stream: Stream) -> None:
        async with gate, asyncio.timeout(WITHIN_S):
            await loop.create_connection(lambda: stream, host, int(port))
            await stream.began.wait()

    await asyncio.gather(*map(begin, streams))
    print("watching", flush=True)
    line = await loop.run_in_executor(None, sys.stdin.readline)
    _, since, _, until = line.split()
    count.since, count.until = float(since), float(until)
    await asyncio.gather(*(stream.ended.wait() for stream in streams))
    broken = [stream.broken for stream in streams if stream.broken]
    print(json.dumps({"ages_ms": count.ages_ms, "tokens": [stream.tokens for stream in streams], "broken": broken}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
