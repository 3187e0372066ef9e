"""A real web server for a test: daphne in a process of its own, on a free port, over this test's database.

Tests that use it need `transactional_db`: what a test has not committed no other process sees.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tests.helpers import eventually, process_environment

ROOT = Path(__file__).resolve().parent.parent


class WebServer:
    """`kill` is SIGKILL, as an operating system short of memory does it; `start` again is on the same port."""

    def __init__(self, log: IO[bytes], environment: dict[str, str], application: str, verbosity: int) -> None:
        self._log, self._environment = log, environment
        self._application, self._verbosity = application, str(verbosity)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was not started"
        return self.process.pid

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable, "-W", "ignore", "-m", "daphne", "-v", self._verbosity, "-b", "127.0.0.1",
                "-p", str(self.port), self._application,
            ],
            cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        eventually(self._accepts, within_s=60)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def output(self) -> str:
        """Read without moving the position, which the process shares."""
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

    def _accepts(self) -> None:
        assert self.process is not None and self.process.poll() is None, self.output()
        with socket.socket() as connection:
            assert connection.connect_ex(("127.0.0.1", self.port)) == 0, "the server does not accept yet"

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def web_server(
    application: str = "project.asgi:application", *, verbosity: int = 0, **environment: str
) -> Iterator[WebServer]:
    """A running server; `environment` adds variables, such as LLMJOBS_VIEWER_BUFFER_MAX="10"; daphne writes an access
    log from the `verbosity` 1 on.
    """
    with TemporaryFile() as log:
        server = WebServer(log, process_environment(**environment), application, verbosity)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
