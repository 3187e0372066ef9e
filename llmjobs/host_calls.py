"""Handlers of the host project, called by a worker.

`HandledSettles` ends jobs with their handlers, each in one transaction; `PendingCalls` makes the calls that are left:
of jobs that a duty ended, of handlers that raised. Does not own the threads that they run in (`host_threads.py`), what
a handler is and what becomes of a call (`handlers.py`), nor which jobs end (`queue.py`).

Invariant: no handler costs a result, a slot or a drain more than its bound. Whatever it does, the job is settled: with
it in one transaction, or else without it, and the call comes later.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from uuid import UUID

import psycopg

from llmjobs import handlers, queue
from llmjobs.conf import conf
from llmjobs.database import Connect
from llmjobs.events import Wake
from llmjobs.host_threads import CallFailed, HostThreads
from llmjobs.leases import Claimed, Settlement
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.handlers")

ROOM_WAIT_S = 5.0  # for a thread: the slot is held meanwhile
SETTLE_S_MAX = 30.0  # for the handler, in the transaction of the settle: the job's row is locked meanwhile
RECLAIM_MARGIN_S = 3.0  # to settle without the handler, before the job is taken for one that ran too long
CALL_S_MAX = 300.0  # for one that is called by itself
KILLS_MAX = 3  # tries that may take their worker with them
TAKEN_S = 60.0  # longer than from taking a call to holding its row; a call whose worker was killed comes again then

Settled = tuple[str, list[Wake]] | None  # as queue.settle_with_handler has it
Done = Callable[[Settled], None]


class HandledSettles:
    """Ends jobs with their handlers, each in one transaction."""

    def __init__(self, *, worker: UUID, connect: Connect) -> None:
        self._worker, self._threads = worker, HostThreads(connect)
        self._hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def settle(self, job: Claimed, claimed_at: float, settlement: Settlement, done: Done) -> None:
        """`done` is called with None where it is to be settled without the handler. `claimed_at`: monotonic."""
        self._tasks.add(task := asyncio.create_task(self._settle(job, claimed_at, settlement, done)))
        task.add_done_callback(self._tasks.discard)

    def hurry(self) -> None:
        """From now on no handler is waited for."""
        self._hurry.set()

    async def idle(self) -> None:
        """Until none is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_idle(self) -> bool:
        return not self._tasks

    def close(self) -> None:
        self._threads.close()

    async def _settle(self, job: Claimed, claimed_at: float, settlement: Settlement, done: Done) -> None:
        settled: Settled = None
        patience_s = claimed_at + job.timeout_s + conf.reclaim_grace_s - RECLAIM_MARGIN_S - time.monotonic()
        try:
            if patience_s > 0 and not self._hurry.is_set():
                settled = await self._threads.run(
                    partial(queue.settle_with_handler, settlement, worker=self._worker),
                    wait_s=min(ROOM_WAIT_S, patience_s / 2),
                    within_s=min(SETTLE_S_MAX, patience_s / 2),
                    idle_s=conf.lease_s,  # should this worker freeze, the row is free when its lease ends
                    or_until=self._hurry,
                )
        except CallFailed as error:
            logger.error("event=settled_without_handler job=%s reason=%r", job.public_id, str(error))
        finally:
            done(settled)


class PendingCalls:
    """A duty of every worker: the calls that are due, each in a transaction of its own. A row is taken for TAKEN_S."""

    def __init__(self, connect: Connect) -> None:
        self._connect, self._threads = connect, HostThreads(connect)

    async def run(self) -> None:
        """Until it is cancelled. What runs then may end in the moment that the worker still takes."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                room, taken = self._threads.free, -1
                if room:
                    try:
                        taken = await self.call_due(room, tasks)
                    except psycopg.Error as error:
                        reason = str(error).strip().partition("\n")[0]
                        logger.warning("event=duty_skipped duty=call_handlers reason=%r", reason)
                if taken == room and tasks:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(conf.sweep_every_s)
        finally:
            try:
                if tasks:
                    await asyncio.wait(tasks)
            finally:
                self._threads.close()

    async def call_due(self, count: int, tasks: set[asyncio.Task[None]]) -> int:
        """Begin up to `count` calls, as `tasks`. Returns how many rows were taken."""
        params = {"again_s": TAKEN_S, "tries_max": conf.handler_tries_max, "kills_max": KILLS_MAX}
        async with self._connect() as conn:
            rows = await (await conn.execute(load("take_handler_calls", rows=count), params)).fetchall()
        for call_id, number, state in rows:
            if state == "dead":
                logger.error("event=handler_dead call=%s tries=%s reason='its worker ended'", call_id, number)
                continue
            tasks.add(task := asyncio.create_task(self._call(call_id, number)))
            task.add_done_callback(tasks.discard)
        return len(rows)

    async def _call(self, call_id: int, number: int) -> None:
        work = partial(handlers.call_again, call_id, number)
        try:
            await self._threads.run(work, wait_s=TAKEN_S / 2, within_s=CALL_S_MAX, idle_s=CALL_S_MAX)
        except CallFailed as error:
            logger.error("event=handler_failed call=%s try=%s reason=%r", call_id, number, str(error))
            await self._note(call_id, number, str(error))

    async def _note(self, call_id: int, number: int, words: str) -> None:
        params = {
            "id": call_id, "tries": number, "tries_max": conf.handler_tries_max, "error": words,
            "wait_s": handlers.wait_s(number),
        }  # fmt: skip
        try:
            async with self._connect() as conn:
                await conn.execute(load("handler_failed"), params)
        except psycopg.Error as error:  # it comes again after TAKEN_S in any case
            logger.warning("event=handler_not_noted call=%s reason=%r", call_id, type(error).__name__)
