"""Requests as daphne receives them, within bounds: it would spool a body of any size to disk, for anybody, and wait for
one for ever, before it asks the application.

Owns the reception alone: what is refused, and how, says bodies.py. Invariant: of a body no more is kept than the bound
and one byte, by which the application sees that it was passed. A length above the bound is answered as soon as it is
read; the rest of that body is read and dropped for a moment, or the client would see a broken connection in place of
the answer.

Another server does not need this, and is not touched by it.
"""

import time
from http import HTTPStatus
from typing import Any

from daphne import http_protocol
from django.http import HttpResponse

from llmjobs.api.errors import of_status
from llmjobs.conf import conf
from project.bodies import new_request_id, too_large

RECEIVE_MAX_S = 120.0  # headers and body together: 4 MiB at 35 kB/s
LINGER_S = 5.0  # for who still sends what was refused
API = b"/api"


class BoundedRequest(http_protocol.WebRequest):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._received_by_s = time.monotonic() + RECEIVE_MAX_S
        self._room = 0
        self._is_refused = False
        super().__init__(*args, **kwargs)

    def gotLength(self, length: int | None) -> None:
        """The headers are read. None: the body comes in chunks."""
        most = int(conf.body_max_bytes)
        self._room = most + 1
        super().gotLength(self._room if length is None else min(length, self._room))
        if length is not None and length > most and self.channel.requests[0] is self:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        kept = b"" if self._is_refused else data[: self._room]
        self._room -= len(kept)
        super().handleContentChunk(kept)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._is_refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def check_timeouts(self) -> None:
        """Asked every two seconds."""
        if not hasattr(self, "request_start") and time.monotonic() > self._received_by_s:
            if self.channel is not None:
                self.channel.forceAbortClient()
        else:
            super().check_timeouts()

    def handle_reply(self, message: dict[str, Any]) -> None:
        self.uri = self.path  # the access log shows it, and no query of anybody's
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

    def _refuse(self) -> None:
        """Past daphne and twisted, which answer only what they have read to its end."""
        self._is_refused = True
        self._received_by_s = time.monotonic() + LINGER_S
        self.requestHeaders.removeHeader(b"Expect")  # or twisted would say "100 Continue" after the answer
        self.channel.transport.write(_wire(too_large(new_request_id()).response()))


def _wire(response: HttpResponse) -> bytes:
    head = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}"]
    head += [f"{name}: {value}" for name, value in response.items()]
    head += [f"Content-Length: {len(response.content)}", "", ""]
    return "\r\n".join(head).encode() + response.content


def install() -> None:
    """daphne makes its requests of this class from now on; its command has no option for that."""
    http_protocol.WebRequest = BoundedRequest
