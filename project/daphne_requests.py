"""Requests as daphne receives them, within bounds: it would spool a body of any size to disk, for anybody, and wait for
one for ever, before it asks the application.

Owns the reception alone: what is refused, and how, says bodies.py. Invariant: of a body no more is kept than the bound
and one byte, by which the application sees that it was passed. A length above the bound is answered as soon as it is
read; the rest of that body is read and dropped for a moment, or the client would see a broken connection in place of
the answer. Of a body that only who is known may send, no more than came with its headers is read before
that is sure. What daphne has on disk, it would hand on all at once: `in_pieces` reads it as the application asks for
it, so that of a long body no more than a piece is in memory.

Another server does not need this, and is not touched by it.
"""

import asyncio
import time
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import IO, Any
from urllib.parse import unquote

from daphne import http_protocol
from django.http import HttpResponse

from llmjobs.api.errors import Problem, of_status
from llmjobs.conf import conf
from llmjobs.live.backpressure import Application
from project.bodies import Message, Receive, Send, is_for_known, most_bytes, refusal, too_large, why_unknown
from project.logs import without_tokens

RECEIVE_MAX_S = 120.0  # headers and body together: 4 MiB at 35 kB/s
BYTES_A_S_MIN = 512 * 1024  # of what a body may have beyond that
PIECE_BYTES = 65_536
LINGER_S = 5.0  # for who still sends what was refused
API = b"/api"


class BoundedRequest(http_protocol.WebRequest):
    content: Any  # a file; twisted says not which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._received_by_s = time.monotonic() + RECEIVE_MAX_S
        self._room = 0
        self._is_refused = False
        super().__init__(*args, **kwargs)

    def gotLength(self, length: int | None) -> None:
        """The headers are read. None: the body comes in chunks."""
        most = self._most_bytes()
        self._room = most + 1
        self._received_by_s += (most - conf.body_max_bytes) / BYTES_A_S_MIN
        super().gotLength(self._room if length is None else min(length, self._room))
        if length is not None and length > most and self.channel.requests[0] is self:
            self._refuse(too_large(most))
        elif is_for_known(length, most):
            self.channel.transport.pauseProducing()
            asking = asyncio.ensure_future(why_unknown(self._headers()))
            asking.add_done_callback(self._go_on)

    def handleContentChunk(self, data: bytes) -> None:
        kept = b"" if self._is_refused else data[: self._room]
        self._room -= len(kept)
        super().handleContentChunk(kept)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._is_refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def process(self) -> Any:
        if not isinstance(self.content, BytesIO):  # it is on disk
            self.content = _OnDisk(self.content)
        return super().process()

    def check_timeouts(self) -> None:
        """Asked every two seconds."""
        if not hasattr(self, "request_start") and time.monotonic() > self._received_by_s:
            if self.channel is not None:
                self.channel.forceAbortClient()
        else:
            super().check_timeouts()

    def handle_reply(self, message: dict[str, Any]) -> None:
        # The access log shows it: no query of anybody's, and no link's token.
        self.uri = without_tokens(self.path.decode("latin-1")).encode("ascii", "replace")
        super().handle_reply(message)

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """What daphne itself answers, such as to a header that is none."""
        if not getattr(self, "uri", b"").startswith(API):
            super().basic_error(status, status_text, body)
            return
        response = of_status(status).response()
        headers = [(name.encode(), value.encode()) for name, value in response.items()]
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": response.content})

    def _most_bytes(self) -> int:
        """As the application's own bound says it of the same request."""
        path = unquote(self.channel._path.partition(b"?")[0].decode("latin-1"))
        kinds = self.requestHeaders.getRawHeaders(b"content-type") or [b""]
        return most_bytes(self.channel._command.decode("latin-1"), path, kinds[0])

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(name.lower(), value) for name, values in self.requestHeaders.getAllRawHeaders() for value in values]

    def _go_on(self, asked: "asyncio.Future[Problem | None]") -> None:
        if self.channel is None:  # the client went away meanwhile
            return
        problem = asked.result()
        if problem is not None and not hasattr(self, "request_start"):  # a short one may have come whole by then
            self._refuse(problem)
        self.channel.transport.resumeProducing()

    def _refuse(self, problem: Problem) -> None:
        """Past daphne and twisted, which answer only what they have read to its end."""
        self._is_refused = True
        self._received_by_s = time.monotonic() + LINGER_S
        self.requestHeaders.removeHeader(b"Expect")  # or twisted would say "100 Continue" after the answer
        self.channel.transport.write(_wire(refusal(problem)))


def _wire(response: HttpResponse) -> bytes:
    head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}"]
    head += [f"{name}: {value}" for name, value in response.items()]
    head += [f"Content-Length: {len(response.content)}", "", ""]
    return "\r\n".join(head).encode() + response.content


class _OnDisk:
    """A body that daphne finds empty, so that it does not take it into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.seek, self.close = file.seek, file.close

    @property
    def closed(self) -> bool:
        return self.file.closed

    def read(self, size: int = -1) -> bytes:
        return b""


def in_pieces(application: Application) -> Application:
    """Around the application: it gets the bodies that daphne did not take."""

    async def piecewise(scope: Message, receive: Receive, send: Send) -> None:
        protocol = send.args[0] if isinstance(send, partial) and send.args else None
        content = getattr(protocol, "content", None)
        if isinstance(content, _OnDisk):
            await application(scope, _Pieces(content.file, receive).receive, send)
        else:
            await application(scope, receive, send)

    return piecewise


class _Pieces:
    def __init__(self, file: IO[bytes], receive: Receive) -> None:
        self._file, self._receive = file, receive
        self._is_told = self._is_over = False

    async def receive(self) -> Message:
        if self._is_over:
            return await self._receive()
        if not self._is_told:  # daphne's own message: an empty body, or that the client is gone
            message = await self._receive()
            self._is_told = True
            if message["type"] != "http.request":
                self._is_over = True
                return message
        await asyncio.sleep(0)  # others have their turn between two pieces
        if self._file.closed:  # with the connection: daphne says so next
            self._is_over = True
            return await self._receive()
        piece = self._file.read(PIECE_BYTES)
        self._is_over = len(piece) < PIECE_BYTES
        return {"type": "http.request", "body": piece, "more_body": not self._is_over}


def install() -> None:
    """daphne makes its requests of this class from now on; its command has no option for that."""
    http_protocol.WebRequest = BoundedRequest
