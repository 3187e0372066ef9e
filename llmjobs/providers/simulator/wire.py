"""HTTP/1.1 on one connection: requests parsed off it, answers put on it one after the other.

Owns the connection. Does not decide an answer, and leaves it to `playback.py` to send it.
Invariant: a connection plays one answer at a time, in the order of the requests; of a client that sends many
ahead it stops reading.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from llmjobs.providers.simulator.answers import Answer
from llmjobs.providers.simulator.ledger import CLIENT_DISCONNECTED, Entry
from llmjobs.providers.simulator.playback import Playback, Stage
from llmjobs.providers.simulator.provider import Request

BODY_MAX_BYTES = 64 * 1024 * 1024
PIPELINED_MAX = 16

_TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_UNREADABLE = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_0 = struct.pack("ii", 1, 0)

Respond = Callable[[Request], tuple[Answer, Entry | None]]


class Connection(asyncio.Protocol):
    """`respond` says what to answer; `gone` is told when the connection is lost."""

    transport: asyncio.Transport

    def __init__(self, respond: Respond, stage: Stage, gone: Callable[["Connection"], None]) -> None:
        self.is_choked = False  # the client reads slower than it is sent to
        self._respond = respond
        self._stage = stage
        self._gone = gone
        self._parser = httptools.HttpRequestParser(self)
        self._is_parsing = True
        self._requests: deque[Request] = deque()
        self._playback: Playback | None = None
        self._is_winding_down = False
        self.on_message_begin()

    def finished(self, *, is_reusable: bool) -> None:
        """The playback has sent its last byte."""
        self._playback = None
        if not is_reusable or self._is_winding_down or not self._is_parsing:
            self.transport.close()
        elif self._requests:
            self._stage.loop.call_soon(self._serve)

    def reset(self) -> None:
        """RST: the client sees ECONNRESET, as if the machine had died."""
        self._playback = None
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.transport.abort()

    def wind_down(self) -> None:
        """Close after the answer that is being played, or now."""
        self._is_winding_down = True
        if self._playback is None:
            self.transport.close()

    def stop(self, outcome: str) -> None:
        """Close at once; a call that still runs ends with this outcome."""
        if self._playback:
            self._playback.cut_off(outcome)
            self._playback = None
        self.transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_parsing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # also for who asks to speak another protocol
            self._reject(_UNREADABLE)
        else:
            self._serve()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_parsing = False
        del self._parser  # it holds this object, as this object holds it
        self._requests.clear()
        if self._playback:
            self._playback.cut_off(CLIENT_DISCONNECTED)
            self._playback = None
        self._gone(self)

    def pause_writing(self) -> None:
        self.is_choked = True

    def resume_writing(self) -> None:
        self.is_choked = False

    # Called by httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes <= BODY_MAX_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._requests.append(Request(method, path, query, self._headers, body, self._parser.should_keep_alive()))
        if len(self._requests) > PIPELINED_MAX:
            self.transport.pause_reading()

    def _serve(self) -> None:
        if self._body_bytes > BODY_MAX_BYTES:
            self._reject(_TOO_LARGE)
        elif self._playback is None and self._requests:
            request = self._requests.popleft()
            if len(self._requests) == PIPELINED_MAX:
                self.transport.resume_reading()
            answer, entry = self._respond(request)
            self._playback = Playback(self, self._stage, answer, entry, keep_alive=request.keep_alive)
            self._playback.start()

    def _reject(self, head: bytes) -> None:
        """What was sent is no request: say so, unless an answer is being played, and close."""
        self._is_parsing = False
        if self._playback is None:
            self.transport.write(head)
        self.transport.close()
