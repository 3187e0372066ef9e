"""Who follows a job as a browser does: over a WebSocket or by Server-Sent Events, again after the last event it saw.

Owns what each viewer was shown, and when it was cut off. Invariant: a viewer that ended by itself saw `done`.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx2
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

COME_AGAIN_S = 0.3
QUIET_S = 40  # a comment or a ping comes every 15 to 20 s: silence for longer is a dead connection

Events = AsyncGenerator[tuple[int, str], None]


@dataclass(slots=True)
class View:
    """`seen` is (seq, type) in the order in which they came; `away` when it was cut off, and when it was back."""

    job: str
    road: str  # ws or sse
    seen: list[tuple[int, str]] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] == "done"


async def watch(view: View, web: Callable[[], str], key: str, http: httpx2.AsyncClient) -> None:
    """Until the job's end was seen. `web` tells where the web server is just now."""
    lost_at: float | None = None
    while not view.is_whole:
        try:
            road = _frames(view, web(), key) if view.road == "ws" else _stream(view, web(), key, http)
            async with aclosing(road) as events:
                async for seq, kind in events:
                    if lost_at is not None:
                        view.away.append((lost_at, time.time()))
                        lost_at = None
                    if kind:
                        view.seen.append((seq, kind))
        except (httpx2.HTTPError, WebSocketException, OSError, TimeoutError):
            pass
        if not view.is_whole:
            lost_at = lost_at or time.time()
            await asyncio.sleep(COME_AGAIN_S)


async def _stream(view: View, web: str, key: str, http: httpx2.AsyncClient) -> Events:
    """One connection of an EventSource; (0, "") says that it stands."""
    headers = {"Authorization": f"Bearer {key}"}
    if view.seen:
        headers["Last-Event-ID"] = str(view.seen[-1][0])
    url = f"{web}/api/jobs/{view.job}/events"
    async with http.stream("GET", url, headers=headers, timeout=QUIET_S) as response:
        if response.status_code != 200:
            return
        yield 0, ""
        seq, kind = 0, ""
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                seq = int(line[4:])
            elif line.startswith("event: "):
                kind = line[7:]
            elif not line and kind:  # an event that was cut off before its empty line never came
                yield seq, kind
                kind = ""


async def _frames(view: View, web: str, key: str) -> Events:
    """One WebSocket, until it closes; (0, "") says that it stands."""
    after = view.seen[-1][0] if view.seen else 0
    url = f"{web.replace('http', 'ws', 1)}/ws/jobs/{view.job}/?after={after}"
    offered = [Subprotocol("llmjobs"), Subprotocol(key)]
    async with connect_websocket(url, subprotocols=offered, proxy=None, open_timeout=QUIET_S) as opened:
        yield 0, ""
        async for text in opened:
            frame = json.loads(text)
            yield frame["seq"], frame["type"]
