"""A worker's sign of life, from a thread and over a connection of its own, so that a busy event loop can't starve it.

It beats only while the loop ticks: a worker whose loop hangs must not keep its leases. Each beat brings back what the
table says this worker holds, so that a claim whose commit was not acknowledged, and a lease that was lost, are noticed.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from llmjobs.conf import conf
from llmjobs.database import connect_sync
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.worker")

STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Beat:
    """`began_at` is time.monotonic() before the question; `held` has (job id, attempt, cancel asked for)."""

    began_at: float
    is_draining: bool
    held: list[tuple[int, int, bool]]


class Heartbeat(threading.Thread):
    """`tell` is called in this thread, with each Beat."""

    def __init__(self, *, worker: UUID, tell: Callable[[Beat], None]) -> None:
        super().__init__(name="llmjobs-heartbeat", daemon=True)
        self._worker, self._tell = worker, tell
        self._stopping = threading.Event()
        self._conn: psycopg.Connection[Any] | None = None
        self.loop_ticked_at = time.monotonic()  # owned by the loop
        self.lease_lost_count = 0  # owned by the loop; told with the next beat
        self.beat_at = time.monotonic()  # when the last successful beat began
        self.is_server_down = False  # the server itself is away: nobody else beats or reclaims either
        self._came_back_at = -math.inf  # when beats succeeded again, after they had not for half a lease

    def may_judge(self) -> bool:
        """Whether an old heartbeat of another worker says that it is dead.

        What kept this worker from beating may have kept all the others: they get a lease's length to come back, as
        they do after a start of Postgres.
        """
        now = time.monotonic()
        return now - self.beat_at < conf.lease_s / 2 and now - self._came_back_at >= conf.lease_s

    def run(self) -> None:
        while not self._stopping.is_set():
            if time.monotonic() - self.loop_ticked_at < conf.lease_s / 2:
                self._beat()
            self._stopping.wait(conf.heartbeat_s)
        if self._conn is not None:
            self._conn.close()

    def stop(self) -> None:
        """After it, nothing is told any more: the loop may close."""
        self._stopping.set()
        self.join(STOP_TIMEOUT_S)

    def _beat(self) -> None:
        began_at, told = time.monotonic(), self.lease_lost_count
        try:
            if self._conn is None or self._conn.closed:
                self._conn = connect_sync(conf.heartbeat_s)
            row = self._conn.execute(load("heartbeat"), {"worker": self._worker, "lease_lost": told}).fetchone()
        except psycopg.Error as error:
            self.is_server_down = _is_server_down(error)
            logger.warning("event=heartbeat_failed reason=%r", str(error).strip().partition("\n")[0])
            self._close()
            return
        self.lease_lost_count -= told
        if began_at - self.beat_at > conf.lease_s / 2:
            self._came_back_at = began_at
        self.beat_at, self.is_server_down = began_at, False
        if row is None:  # somebody removed or stopped this worker's row: what it holds will be taken back
            self._tell(Beat(began_at, True, []))
            return
        self._tell(Beat(began_at, row[0], [tuple(lease) for lease in row[1]]))

    def _close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _is_server_down(error: psycopg.Error) -> bool:
    """Whether the server said itself that it is away, or nobody listens there. A time-out may be our own network."""
    if isinstance(error, (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)):
        return True
    words = (
        "Connection refused",
        "No such file",
        "starting up",
        "shutting down",
        "server closed the connection",
    )
    return any(word in str(error) for word in words)
