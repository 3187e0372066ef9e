"""One listening port that can be shut and opened again.

Owns the sockets. Does not own the connections that come of them: `connected` makes their protocols.
Invariant: from `shut` until `open` a connect is refused by the kernel, and the port stays bound all the
while. A free port of the ephemeral range could be taken by chance, even by a client's own connect, which then
is connected to itself.
"""

import asyncio
import errno
import socket
import sys
from collections.abc import Callable

BACKLOG = 4096
ACCEPTED_AT_ONCE = 128  # connections taken before the loop goes on with others
RETRY_ACCEPT_S = 0.1  # when the process is out of file descriptors


class Listener:
    def __init__(self, address: tuple[str, int], connected: Callable[[], asyncio.Protocol]) -> None:
        """Port 0: any free one; `port` says which. Raises OSError if it is taken."""
        self._loop = asyncio.get_running_loop()
        self._connected = connected
        self._accepting: set[asyncio.Task[object]] = set()
        self._socket: socket.socket | None = None
        first = _bound(address)
        self.host, self.port = first.getsockname()[:2]
        # Linux lets a second socket listen on a port that one with SO_REUSEADDR merely holds.
        self._holder = first if sys.platform == "linux" else None
        self._spare = None if self._holder else first
        self.open()

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def open(self) -> None:
        if self._socket is None:
            self._socket, self._spare = self._spare or _bound((self.host, self.port)), None
            self._socket.listen(BACKLOG)
            self._accept_from(self._socket)

    def shut(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """For good: the port is free again."""
        self.shut()
        if self._holder is not None:
            self._holder.close()
        for task in self._accepting:
            task.cancel()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._loop.remove_reader(listening)
                self._loop.call_later(RETRY_ACCEPT_S, self._accept_from, listening)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._connected, accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _accept_from(self, listening: socket.socket) -> None:
        if self._socket is listening:  # and not shut in the meantime
            self._loop.add_reader(listening, self._accept, listening)


def _bound(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
