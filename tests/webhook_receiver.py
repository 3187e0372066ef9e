"""Somebody who is told by webhook, on loopback: answers as the path says, and keeps what came.

    /ok  /status/<code>  /then/<code> (that, and 200 from the second time on)  /hang  /huge  /drip  /moved  /later (429)

It checks signatures by the published algorithm, not by ours: what is signed is `<id>.<timestamp>.<body>`.
"""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = b"x" * 65_536


@dataclass(frozen=True, slots=True)
class Heard:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def is_signed_by(self, secret: str) -> bool:
        """One of the signatures is of this secret."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


class WebhookReceiver:
    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.released = threading.Event()  # ends what hangs and drips
        self.at_once = self.most_at_once = 0
        self.sent_bytes = 0  # of huge answers
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def url(self, path: str = "/ok", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def ids(self) -> Counter[str]:
        return Counter(heard.headers["webhook-id"] for heard in self.heard)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with receiver._lock:
                    receiver.at_once += 1
                    receiver.most_at_once = max(receiver.most_at_once, receiver.at_once)
                try:
                    body = self.rfile.read(int(self.headers["content-length"]))
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    with receiver._lock:
                        receiver.heard.append(Heard(self.path, headers, body))
                        receiver._seen[self.path] += 1
                    with suppress(OSError):
                        receiver._answer(self)
                finally:
                    with receiver._lock:
                        receiver.at_once -= 1

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        _, what, *rest = handler.path.partition("?")[0].split("/")
        if what == "hang":
            self.released.wait(60)
            _head(handler, 200, {"content-length": "0"})
        elif what == "drip":
            self._drip(handler)
        elif what == "huge":
            self._be_huge(handler)
        elif what == "moved":
            _head(handler, 302, {"location": self.url("/trap"), "content-length": "0"})
        elif what == "later":
            _head(handler, 429, {"retry-after": "30", "content-length": "0"})
        else:
            is_first = self._seen[handler.path] == 1
            status = int(rest[0]) if what == "status" or (what == "then" and is_first) else 200
            _head(handler, status, {"content-length": "5", "set-cookie": "who=you"})
            handler.wfile.write(b"so\0so")

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        """A header that never ends, a byte at a time."""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not self.released.wait(0.02):
            handler.wfile.write(b"a")

    def _be_huge(self, handler: BaseHTTPRequestHandler) -> None:
        _head(handler, 500, {"content-length": str(2**40)})
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            handler.wfile.write(CHUNK)
            self.sent_bytes += len(CHUNK)


def _head(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    try:
        yield receiver
    finally:
        receiver.close()
