"""Threads in which a worker runs the host's code: so many at once, and not waited for without a bound.

Owns the threads and the connections that they use: Django's own, one a thread, kept while it is busy, since a new
session plans its first settle in tens of milliseconds, and dropped as soon as anything went wrong on it. Does not own
what is run.

Invariant: what `run` returns has committed; for all else nobody waits longer than was said. A thread can't be ended
from outside. Its transaction can, and it counts as one of so many until it has returned.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import psycopg
from django.db import connection, connections, transaction

from llmjobs.database import Connect
from llmjobs.handlers import line

logger = logging.getLogger("llmjobs.handlers")

T = TypeVar("T")

AT_ONCE = 4  # threads of a kind, and so connections: what a host's Postgres has to spare of them, by worker
IDLE_S = 5.0  # after that a thread gives its connection back
LEFT_WITHIN_S = 1.0  # to close it, where the worker ends
ENDED_WITHIN_MS = 5_000  # a session that is told to end does so in milliseconds
# A session, and the transaction in it; whatever DateStyle the host has. Of a worker that froze nobody else ends it.
WHERE = """
select pg_backend_pid(), to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    set_config('idle_in_transaction_session_timeout', %s, true)
"""
END = "select pg_terminate_backend(pid, %s) from pg_stat_activity where pid = %s and xact_start = %s::timestamptz"


class CallFailed(Exception):
    """The transaction did not commit, or nobody knows; says why."""


class HostThreads:
    """AT_ONCE threads, begun when they are needed. `close` ends them."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._room = asyncio.Semaphore(AT_ONCE)
        self._all: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._busy_count = 0
        self._given_up_count = 0  # of these, threads that nobody waits for any more

    @property
    def free(self) -> int:
        return AT_ONCE - self._busy_count

    async def run(
        self,
        work: Callable[[], T],
        *,
        wait_s: float,
        within_s: float,
        idle_s: float,
        or_until: asyncio.Event | None = None,
    ) -> T:
        """What `work` returned in a transaction of its own, once that has committed. Raises CallFailed otherwise.

        `wait_s`: for room; not at all where threads that were given up hold all of it. `or_until`: given up then too.
        `idle_s`: so long at most is nothing asked of Postgres in it.
        """
        try:
            async with asyncio.timeout(wait_s if self._given_up_count < AT_ONCE else 0):
                await self._room.acquire()
        except TimeoutError:
            raise CallFailed(f"all {AT_ONCE} threads for handlers are taken") from None
        piece = self._begin(work, idle_s)
        given_up = asyncio.ensure_future((or_until or asyncio.Event()).wait())
        returned = asyncio.ensure_future(piece.returned.wait())
        try:
            await asyncio.wait({returned, given_up}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()
            returned.cancel()
            if not piece.returned.is_set():
                piece.is_given_up = True
                self._given_up_count += 1
        if not piece.returned.is_set():
            await self._end(piece)
        return piece.outcome()

    def close(self) -> None:
        """Each ends with what it does. Those that do nothing have closed their connections when this returns."""
        for thread in self._all:
            thread.leave()
        for thread in self._idle:
            thread.join(LEFT_WITHIN_S)

    def _begin(self, work: Callable[[], T], idle_s: float) -> "_Piece[T]":
        if not self._idle:
            try:
                self._idle.append(_Thread())
            except RuntimeError as error:  # the system has none left
                self._room.release()
                raise CallFailed(line(error)) from error
            self._all.append(self._idle[-1])
        thread, loop = self._idle.pop(), asyncio.get_running_loop()
        self._busy_count += 1

        def back() -> None:
            with suppress(RuntimeError):  # the worker's loop has ended
                loop.call_soon_threadsafe(self._back, thread, piece)

        piece = _Piece(work, back, idle_s)
        thread.give(piece)
        return piece

    def _back(self, thread: "_Thread", piece: "_Piece[Any]") -> None:
        piece.returned.set()
        self._idle.append(thread)
        self._room.release()
        self._busy_count -= 1
        self._given_up_count -= piece.is_given_up

    async def _end(self, piece: "_Piece[Any]") -> None:
        """End its transaction, and no other one: a pooler may have given its session to somebody else by now."""
        if piece.where is None:  # it has not begun, and sees that it was given up when it does
            return
        pid, began_at = piece.where
        with suppress(psycopg.Error):  # Postgres is away: then so is the transaction
            async with self._connect() as conn:
                await conn.execute(END, [ENDED_WITHIN_MS, pid, began_at])


class _Piece(Generic[T]):
    """One piece of work, in one transaction."""

    def __init__(self, work: Callable[[], T], back: Callable[[], None], idle_s: float) -> None:
        self._work, self.back, self._idle_s = work, back, idle_s
        self.returned = asyncio.Event()
        self.where: tuple[int, str] | None = None  # its session's pid, and when its transaction began
        self.is_given_up = False
        self._is_committed = False
        self._result: list[T] = []
        self._error: BaseException | None = None

    def outcome(self) -> T:
        """Raises CallFailed unless it is known to have committed."""
        if not self._is_committed:
            raise CallFailed(line(self._error) if self._error else "the handler did not return in time")
        return self._result[0]

    def carry_out(self) -> None:
        try:
            with transaction.atomic():
                transaction.on_commit(self._commit)  # first of all: one of the handler's own may raise
                with connection.cursor() as cursor:
                    cursor.execute(WHERE, [f"{self._idle_s:.3f}s"])
                    pid, began_at, _ = cursor.fetchone()
                self.where = pid, began_at
                if self.is_given_up:
                    raise CallFailed("the worker stops")
                self._result.append(self._work())
        except BaseException as error:  # a thread's boundary: nothing of the host's code may pass it
            self._error = error
            if self._is_committed:
                logger.exception("event=on_commit_raised")
        finally:
            if self._error is not None or not self._is_committed:
                _drop_connections()

    def _commit(self) -> None:
        self._is_committed = True


class _Thread:
    """A daemon: one that never comes back must not keep the process."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[_Piece[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._live, name="llmjobs handler", daemon=True)
        self._thread.start()
        self.join = self._thread.join

    def give(self, piece: _Piece[Any]) -> None:
        self._todo.put(piece)

    def leave(self) -> None:
        """Once it has done what it was given."""
        self._todo.put(None)

    def _live(self) -> None:
        while (piece := self._next()) is not None:
            piece.carry_out()
            piece.back()
        _drop_connections()

    def _next(self) -> _Piece[Any] | None:
        try:
            return self._todo.get(timeout=IDLE_S)
        except queue.Empty:
            _drop_connections()
            return self._todo.get()


def _drop_connections() -> None:
    """Of this thread, with whatever a handler did to them; the next use makes new ones."""
    for alias in connections:
        with suppress(BaseException):
            connections[alias].close()
        with suppress(AttributeError):
            del connections[alias]
