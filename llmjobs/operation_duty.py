"""A worker's duty: large operations, batch by batch, one worker a time at each.

Owns the loop. A batch runs in a thread, over Django's connection, since the verbs take part in a transaction there;
no connection of the worker's own is held meanwhile, nor in the pauses.
"""

import asyncio
import logging
import time
from functools import partial
from typing import Any, NoReturn

import psycopg

from llmjobs import operation_steps
from llmjobs.database import Connect
from llmjobs.host_threads import CallFailed, HostThreads
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.worker")

LOOK_EVERY_S = 1.0
BATCH_S_MAX = 60.0  # then its transaction is ended
IDLE_S = 10.0  # nothing is asked of Postgres for so long: this worker froze, and others want the jobs
ROOM_S = 30.0
UNDO_FOR_S = 7 * 86_400.0  # then an operation's items go
FORGET_EVERY_S, FORGET_ROWS = 60.0, 5_000


class OperationDuty:
    """One a worker. `run` until it is cancelled."""

    def __init__(self, connect: Connect) -> None:
        self._connect, self._threads = connect, HostThreads(connect)
        self._forgot_at = time.monotonic()

    async def run(self) -> NoReturn:
        try:
            while True:
                wait_s = LOOK_EVERY_S
                try:
                    wait_s = await self.turn()
                except psycopg.Error as error:
                    reason = str(error).strip().partition("\n")[0]
                    logger.warning("event=duty_skipped duty=operate reason=%r", reason)
                await asyncio.sleep(wait_s)
        finally:
            self._threads.close()

    async def turn(self) -> float:
        """A batch, if one is due. Returns after how many seconds to look again."""
        due = await self._one("operation_due")
        if due is None:
            await self._forget()
            return LOOK_EVERY_S
        operation_id, in_s = due
        if operation_id is None:
            return min(LOOK_EVERY_S, float(in_s))
        try:
            work = partial(operation_steps.step, operation_id)
            is_done = await self._threads.run(work, wait_s=ROOM_S, within_s=BATCH_S_MAX, idle_s=IDLE_S)
        except CallFailed as error:
            logger.error("event=batch_failed operation=%s reason=%r", operation_id, str(error))
            await self._note(operation_id, str(error))
            return LOOK_EVERY_S
        return 0.0 if is_done else LOOK_EVERY_S

    async def _note(self, operation_id: int, words: str) -> None:
        try:
            work = partial(operation_steps.note_failure, operation_id, words)
            await self._threads.run(work, wait_s=ROOM_S, within_s=ROOM_S, idle_s=ROOM_S)
        except CallFailed as error:  # Postgres is away: then it is tried again when it is back
            logger.warning("event=failure_not_noted operation=%s reason=%r", operation_id, str(error))

    async def _forget(self) -> None:
        if time.monotonic() - self._forgot_at < FORGET_EVERY_S:
            return
        self._forgot_at = time.monotonic()
        while True:
            gone = await self._one("operation_forget", {"age_s": UNDO_FOR_S}, rows=FORGET_ROWS)
            if gone is None or gone[0] < FORGET_ROWS:
                return

    async def _one(self, name: str, params: dict[str, Any] | None = None, **literals: int) -> Any:
        async with self._connect() as conn:
            return await (await conn.execute(load(name, **literals), params)).fetchone()
