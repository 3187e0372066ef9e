"""A provider that says exactly the bytes that a test gives it, over real HTTP, and keeps what it was asked.

For answers that no honest provider sends; what a provider does send is the simulator's.
"""

import json
import os
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Piece = bytes | threading.Event  # sent as it is, or waited for before what follows
Answer = Callable[["Request"], Iterable[Piece]]
PATIENCE_S = 20


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class ScriptedProvider:
    def __init__(self, server: socketserver.ThreadingTCPServer, answer: Answer, scheme: str = "http") -> None:
        self.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/v1"
        self.requests: list[Request] = []
        self.answer = answer


def json_answer(body: Any, status: int = 200, headers: str = "") -> list[Piece]:
    """`body`: what JSON can say, or bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n{headers}\r\n".encode()
        + raw
    ]


def stream_answer(*events: Any, end: Iterable[Piece] = ()) -> list[Piece]:
    """A stream that lasts as long as its connection. An event is what JSON can say, or bytes; `end`: what follows."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    data = [b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events]
    return [head, *data, *end]


def said(*texts: str, usage: Any = None) -> list[Any]:
    """The events of a whole chat stream that says `texts`."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        chunks.append(head | {"choices": [], "usage": usage})
    return [*chunks, b"[DONE]"]


@contextmanager
def scripted(answer: Answer | Iterable[Piece], *, tls_chain: Path | None = None) -> Iterator[ScriptedProvider]:
    """`answer`: the pieces of every answer, or what makes them from a Request. `tls_chain`: certificate and key."""
    fixed = list(answer) if not callable(answer) else None

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client left
                while (request := _read(self.rfile)) is not None:
                    provider.requests.append(request)
                    self._say(provider.answer(request))
                    if b"connection: close" in self._said.lower():
                        return

        def _say(self, pieces: Iterable[Piece]) -> None:
            self._said = b""
            for piece in pieces:
                if isinstance(piece, threading.Event):
                    piece.wait(PATIENCE_S)
                elif piece == RESET:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self._said += b"connection: close"
                    os.close(self.connection.detach())  # now, before the server would say FIN
                else:
                    self._said += piece[:300]
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 200

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls_chain is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls_chain)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls_chain is None else "https"
        provider = ScriptedProvider(server, answer if callable(answer) else lambda request: fixed or [], scheme)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()


RESET = b"\0reset the connection\0"


def _read(file: Any) -> Request | None:
    start = file.readline().decode("latin-1").split()
    if len(start) < 2:
        return None
    headers = {}
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(start[1], headers, file.read(int(headers.get("content-length", 0))))
