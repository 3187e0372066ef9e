"""A way from a program to a server that a test can cut: a TCP port in front of it.

`cut`: connections end, as when a router restarts; new ones get through. `refuse`: they end, and nobody listens.
`freeze`: they stay, and nothing passes in either direction, as when a network swallows packets. `restore`: as before.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PIECE = 65_536


class Cable:
    """`connect` makes a connection to the server, or raises OSError while it is away: then so is this."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._passing = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._posts_left: int | None = None
        self.port = 0
        self.restore()

    @property
    def is_frozen(self) -> bool:
        return not self._passing.is_set()

    def restore(self) -> None:
        """Everything passes again, for connections that are still open too."""
        self._passing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
            listener.close()
        self.cut()

    def freeze(self) -> None:
        self._passing.clear()

    def freeze_at_post(self, number: int) -> None:
        """By itself, with this POST, counted from now on, in its hands: however late the test would come to it."""
        self._posts_left = number

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._join, args=(near, listener), daemon=True).start()

    def _join(self, near: socket.socket, listener: socket.socket) -> None:
        try:
            far = self._connect()
        except OSError:
            near.close()
            return
        self._sockets |= {near, far}
        if self._listener is not listener:  # refused meanwhile
            near.shutdown(socket.SHUT_RDWR)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                self._count(data)
                self._passing.wait()
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()

    def _count(self, data: bytes) -> None:
        if self._posts_left is not None and data.startswith(b"POST "):
            self._posts_left -= 1
            if self._posts_left == 0:
                self.freeze()


@contextmanager
def cable(port: int) -> Iterator[Cable]:
    """In front of a server on this machine."""
    made = Cable(lambda: socket.create_connection(("127.0.0.1", port)))
    try:
        yield made
    finally:
        made.restore()
        made.refuse()
