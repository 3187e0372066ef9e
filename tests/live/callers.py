"""Browsers, as the site's ASGI application meets them: `Stream` reads Server-Sent Events, `Socket` speaks WebSocket.

Both go through everything that a web server would call, Django's middleware included; only the server itself is
missing.
"""

import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from asgiref.testing import ApplicationCommunicator
from django.test import Client as Browser

from llmjobs.models import Client
from tests.factories import make_user

WITHIN_S = 30.0
ORIGIN = "http://testserver"


class _Connection:
    def __init__(self, scope: dict[str, Any], path: str, headers: dict[str, str]) -> None:
        from project.asgi import application

        parts = urlsplit(path)
        self.scope = {
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(b"host", b"testserver"), *((k.lower().encode(), v.encode()) for k, v in headers.items())],
            **scope,
        }
        self.application = ApplicationCommunicator(application, self.scope)

    async def receive(self) -> dict[str, Any]:
        return await self.application.receive_output(WITHIN_S)


class Stream(_Connection):
    """`async with Stream(path, key) as stream`: leaving it is the browser's going away."""

    def __init__(self, path: str, key: str | None = None, *, method: str = "GET", **headers: str) -> None:
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__({"type": "http", "method": method, "scheme": "http", "http_version": "1.1"}, path, named)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments: list[str] = []
        self.is_over = False
        self._unread = ""
        self._blocks: list[str] = []

    async def __aenter__(self) -> Self:
        await self.application.send_input({"type": "http.request", "body": b"", "more_body": False})
        start = await self.receive()
        self.status = start["status"]
        self.headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.application.future.done():
            await self.application.send_input({"type": "http.disconnect"})
            await self.application.wait(WITHIN_S)

    async def body(self) -> bytes:
        """Of a response that ends."""
        body = b""
        while not self.is_over:
            body += await self._chunk()
        return body

    async def error(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/json"
        shown = json.loads(await self.body())
        assert set(shown) == {"error"} and set(shown["error"]) == {"code", "message", "type", "param"}, shown
        return shown["error"]

    async def next(self, count: int = 1) -> list[dict[str, Any]]:
        """The next events: {"id", "event", "data"}. Fewer if the stream ended."""
        found: list[dict[str, Any]] = []
        while len(found) < count and (self._blocks or not self.is_over):
            if not self._blocks:
                self._split((await self._chunk()).decode())
                continue
            block = self._blocks.pop(0)
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            self.comments += [line for line in block.split("\n") if line.startswith(":")]
            if "data" in fields:
                found.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
        return found

    async def rest(self) -> list[dict[str, Any]]:
        """Everything to the stream's end."""
        return await self.next(1_000_000)

    async def comment(self) -> str:
        """The next comment line; events on the way are lost."""
        while not self.comments:
            self._split((await self._chunk()).decode())
            self.comments += [block for block in self._blocks if block.startswith(":")]
            self._blocks.clear()
        return self.comments.pop(0)

    def _split(self, text: str) -> None:
        *blocks, self._unread = (self._unread + text).split("\n\n")
        self._blocks += blocks

    async def _chunk(self) -> bytes:
        message = await self.receive()
        self.is_over = not message.get("more_body", False)
        return message.get("body", b"")


class Closed(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Socket(_Connection):
    """`async with Socket(path, key) as socket`. Without a key it is a browser's: with an Origin, perhaps a session."""

    def __init__(self, path: str, key: str | None = None, *, origin: str | None = None, cookie: str = "") -> None:
        headers = {"origin": origin} if origin is not None else {}
        if cookie:
            headers["cookie"] = cookie
        subprotocols = ["llmjobs", key] if key is not None else []
        super().__init__({"type": "websocket", "subprotocols": subprotocols}, path, headers)
        self.subprotocol: str | None = None

    async def __aenter__(self) -> Self:
        await self.application.send_input({"type": "websocket.connect"})
        answer = await self.receive()
        if answer["type"] == "websocket.close":
            raise Closed(403, "not accepted")
        self.subprotocol = answer["subprotocol"]
        return self

    async def __aexit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.application.future.done():
            await self.application.send_input({"type": "websocket.disconnect", "code": 1001})
            await self.application.wait(WITHIN_S)

    async def next(self, count: int = 1) -> list[dict[str, Any]]:
        """The next frames. Raises Closed."""
        found = []
        for _ in range(count):
            message = await self.receive()
            if message["type"] == "websocket.close":
                raise Closed(message.get("code", 1000), message.get("reason", ""))
            found.append(json.loads(message["text"]))
        return found

    async def rest(self) -> tuple[list[dict[str, Any]], Closed]:
        """Everything to the end, and how it ended."""
        found = []
        try:
            while True:
                found += await self.next()
        except Closed as closed:
            return found, closed

    async def say(self, text: str) -> None:
        await self.application.send_input({"type": "websocket.receive", "text": text})


async def has_nothing(connection: _Connection) -> None:
    """Fails if something comes within a moment."""
    assert await connection.application.receive_nothing(0.3)


async def closed_at(path: str, key: str | None = None, **more: str) -> int:
    """The code that it is closed with at once. A frame before that fails: a stream might go on for ever."""
    async with Socket(path, key, **more) as socket:
        try:
            seen = await socket.next()
        except Closed as closed:
            return closed.code
    raise AssertionError(f"expected it to be closed, got {seen}")


def session_of(
    *clients: Client, is_operator: bool = False, permissions: tuple[str, ...] = ("view_job", "view_job_content")
) -> str:
    """The cookie of a user who belongs to `clients`, or of a member of the staff who may see all jobs."""
    staff = {"is_staff": True, "permissions": permissions} if is_operator else {}
    browser = Browser()
    browser.force_login(make_user(*clients, **staff))  # type: ignore[arg-type]
    return f"sessionid={browser.cookies['sessionid'].value}"
