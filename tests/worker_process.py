"""A real worker for a test: `manage.py runworker` in a process of its own, over this test's database.

Leases and polls are short, so that a test sees within seconds what takes an installation a quarter of a minute.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from tests.helpers import eventually, process_environment
from tests.live_process import ROOT

FAST = {
    "LLMJOBS_LEASE_S": "4",  # past half of it without a beat a worker claims nothing, and the machine may be busy
    "LLMJOBS_HEARTBEAT_S": "0.5",
    "LLMJOBS_POLL_S": "0.1",
    "LLMJOBS_RECLAIM_EVERY_S": "0.2",
    "LLMJOBS_SWEEP_EVERY_S": "0.2",
    "LLMJOBS_BACKOFF_BASE_S": "0.05",
    "LLMJOBS_BACKOFF_CAP_S": "0.3",
    "LLMJOBS_PROBE_S": "0.3",
    "LLMJOBS_PROBE_MAX_S": "0.3",
}


class WorkerProcess:
    def __init__(self, log: IO[bytes], arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._log = log
        self._said = b""
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "manage.py", "runworker", "--die-with-parent", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self, within_s: float = 60) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(within_s)

    def output(self) -> str:
        """Read without moving the position, which the process shares."""
        if not self._log.closed:
            number = self._log.fileno()
            self._said = os.pread(number, os.fstat(number).st_size, 0)
        return self._said.decode(errors="replace")

    def said(self, pattern: str, within_s: float = 40) -> None:
        def look() -> None:
            assert re.search(pattern, self.output()), self.output()

        eventually(look, within_s)


@contextmanager
def worker_process(*arguments: str, **environment: str) -> Iterator[WorkerProcess]:
    """A running worker, drained at the end; `environment` adds variables."""
    with TemporaryFile() as log:
        worker = WorkerProcess(log, arguments, process_environment(**FAST | environment))
        try:
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
                worker.signal(signal.SIGTERM)
                try:
                    worker.process.wait(15)
                except subprocess.TimeoutExpired:
                    worker.kill()
            worker.output()  # so that it can be asked afterwards, too
