"""A way to Postgres that a test can cut: a TCP port in front of the test server's socket.

`refuse`: connections end, nobody listens. `freeze`: connections stay, and nothing passes in either direction, as when a
network swallows packets.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.db import connection

PIECE = 65_536


class DatabaseProxy:
    def __init__(self) -> None:
        settings = connection.settings_dict
        self._server = str(Path(settings["HOST"]) / f".s.PGSQL.{settings['PORT'] or 5432}")
        self._user, self._name = settings["USER"], settings["NAME"]
        self._passing = threading.Event()
        self._passing.set()
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.restore()

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}/{self._name}"

    def restore(self) -> None:
        """Everything passes again, for connections that are still open too."""
        self._passing.set()
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
            self._port, self._listener = listener.getsockname()[1], listener
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
            listener.close()
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        self._passing.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._server)
                self._sockets |= {near, far}
                if self._listener is not listener:  # refused meanwhile
                    near.shutdown(socket.SHUT_RDWR)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                self._passing.wait()
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()


@contextmanager
def database_proxy() -> Iterator[DatabaseProxy]:
    proxy = DatabaseProxy()
    try:
        yield proxy
    finally:
        proxy.restore()
        proxy.refuse()
