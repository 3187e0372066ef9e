"""A worker's deliveries: webhooks that are due, taken fairly, sent, and marked.

Owns the loop, the bounds and the marks. Does not own the event (`webhooks.py`), the way to a receiver (`posting.py`)
nor whose turn it is (`receivers.py`). No connection is held and no transaction open while somebody is sent to.

Invariant: delivered at least once. A delivery is taken by pushing its time ahead, sent, and marked; of a worker that
dies between it comes again by itself, with the same `webhook-id`. Only the try that was taken last may call it failed.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from psycopg.rows import dict_row

from llmjobs.conf import conf
from llmjobs.coroutines import cancelled
from llmjobs.database import Connect, one_trip
from llmjobs.posting import Answer, Poster
from llmjobs.receivers import Pair, Receivers
from llmjobs.sql import load
from llmjobs.webhooks import Delivery, body_of, headers_of

logger = logging.getLogger("llmjobs.webhooks")

LOOK_ROWS, LOOK_PAIRS = 100, 100  # see due_receivers.sql; the next walk goes on behind this one's end
TAKEN_MARGIN_S = 60.0  # beside the time-out: to render it, and for Postgres to come back
IDLE_S = 10.0  # without a delivery for so long, Django's connection is given back
JOB_GONE = Answer(error="the job was removed before it could be told of", is_final=True)


class Deliveries:
    """One a worker. `connect` gives a connection for a moment; it is asked for one at a time."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._one_connection = asyncio.Lock()  # the pool is there for jobs
        self._receivers, self._poster = Receivers(), Poster()
        self._looked_to: Pair = (0, "")
        self._looked_at = self._used_at = 0.0  # of time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._is_over, self._has_ended = False, asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "llmjobs-webhooks")  # with Django's connection, which is a thread's own

    async def run(self) -> None:
        """Until `finish`: a cancel might leave taken what nobody sends."""
        try:
            while not self._is_over:
                self._freed.clear()
                await self._begin_or_say()
                if not self._tasks and self._used_at and time.monotonic() - self._used_at > IDLE_S:
                    self._used_at = 0.0
                    await asyncio.get_running_loop().run_in_executor(self._thread, connections.close_all)
                with suppress(TimeoutError):
                    async with asyncio.timeout(conf.poll_s):
                        await self._freed.wait()
        finally:
            self._has_ended.set()

    async def begin(self) -> None:
        """Begin to send what is due, as far as there is room."""
        if not self._receivers or time.monotonic() - self._looked_at >= 2 * conf.poll_s:
            await self._look()
        while pairs := self._next():
            deliveries = await self._take(pairs)
            for pair in {*pairs} - {(delivery.client_id, delivery.receiver) for delivery in deliveries}:
                self._receivers.remove(pair)
            for delivery in deliveries:
                pair = (delivery.client_id, delivery.receiver)
                self._receivers.begin(pair)
                task = asyncio.create_task(self._deliver(delivery))
                self._tasks.add(task)
                task.add_done_callback(partial(self._ended, pair))

    async def finish(self, *, within_s: float, may_begin: Callable[[], bool]) -> None:
        """Let end what is being sent; while `may_begin` says so, try once what is due. The rest is left to others."""
        self._is_over = True
        self._freed.set()
        try:
            async with asyncio.timeout(within_s):
                await self._has_ended.wait()
                while True:
                    self._freed.clear()
                    if may_begin():
                        self._looked_at = 0.0
                        await self._begin_or_say()
                    if not self._tasks:
                        return
                    await self._freed.wait()
        except TimeoutError:
            logger.warning("event=webhooks_left deliveries=%s", len(self._tasks))

    def abort(self) -> None:
        """What is being sent comes again later, from another worker."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        await cancelled(*self._tasks)
        await asyncio.get_running_loop().run_in_executor(self._thread, connections.close_all)
        self._thread.shutdown(wait=True)

    async def _begin_or_say(self) -> None:
        try:
            await self.begin()
        except psycopg.Error as error:
            logger.warning("event=duty_skipped duty=deliver reason=%r", str(error).strip().partition("\n")[0])

    # Whose turn it is, and what is sent to them.

    def _next(self) -> list[Pair]:
        room = conf.webhook_concurrency - len(self._tasks)
        # Half for one client at most, so that there is always room for the second.
        per_client = max(1, conf.webhook_concurrency // 2)
        return self._receivers.next(room, per_receiver=conf.webhook_per_receiver, per_client=per_client)

    async def _look(self) -> None:
        """Who has something due, from where the last look ended."""
        self._looked_at = time.monotonic()
        client_id, receiver = self._looked_to
        statement = load("due_receivers", rows=LOOK_ROWS, pairs=LOOK_PAIRS)
        rows = await self._found(statement, {"client_id": client_id, "receiver": receiver})
        for row in rows:
            if row["is_due"]:
                self._receivers.add((row["client_id"], row["receiver"]))
        is_cut = bool(rows) and rows[-1]["nth"] == LOOK_PAIRS
        self._looked_to = (rows[-1]["client_id"], rows[-1]["receiver"]) if is_cut else (0, "")

    async def _take(self, pairs: list[Pair]) -> list[Delivery]:
        params = {
            "clients": [client_id for client_id, _ in pairs], "receivers": [receiver for _, receiver in pairs],
            "taken_s": conf.webhook_timeout_s + TAKEN_MARGIN_S, "retry_for_s": conf.webhook_retry_for_s,
        }  # fmt: skip
        return [Delivery(**row) for row in await self._found(load("take_deliveries"), params)]

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._mark(delivery, await self._send(delivery))
        except (psycopg.Error, DatabaseError) as error:  # it comes again
            logger.warning("event=webhook_not_marked delivery=%s reason=%r", delivery.id, type(error).__name__)

    def _ended(self, pair: Pair, task: asyncio.Task[None]) -> None:
        """However it ended, also before it began."""
        self._tasks.discard(task)
        self._receivers.end(pair)
        self._freed.set()

    async def _send(self, delivery: Delivery) -> Answer:
        if delivery.public_id is None:
            return JOB_GONE
        try:
            self._used_at = time.monotonic()
            body = await asyncio.get_running_loop().run_in_executor(self._thread, _rendered, delivery)
            if body is None:
                return JOB_GONE
            return await self._poster.post(delivery.url, body, headers_of(delivery, body))
        except DatabaseError:
            raise
        except Exception as error:  # one delivery's fault must not end a worker
            # Without its message, which may quote the job.
            return Answer(error=f"it could not be made: {type(error).__name__}")

    async def _mark(self, delivery: Delivery, answer: Answer) -> None:
        if answer.error is None:
            await self._rows(load("delivered"), {"id": delivery.id, "status": answer.status})
            return
        error = f"{answer.error}: {answer.said}" if answer.said else answer.error
        params = {
            "id": delivery.id, "tried_at": delivery.tried_at, "status": answer.status,
            "error": error.replace("\0", " "), "is_final": answer.is_final, "wait_s": answer.wait_s,
            "base_s": conf.webhook_backoff_base_s, "cap_s": conf.webhook_backoff_cap_s,
        }  # fmt: skip
        rows = await self._rows(load("not_delivered"), params)
        state = rows[0]["state"] if rows else "tried by others"
        logger.warning(
            "event=webhook_failed job=%s receiver=%s tries=%s state=%s reason=%r",
            delivery.public_id or delivery.job_id, delivery.receiver, delivery.tries, state, answer.error,
        )  # fmt: skip

    async def _found(self, statement: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Of a statement that must walk its index, whatever the statistics say."""
        async with self._one_connection, self._connect() as conn, conn.cursor(row_factory=dict_row) as cursor:
            async with one_trip(conn):
                await conn.execute(load("pin_reads"))
                await cursor.execute(statement, params)
            return await cursor.fetchall()

    async def _rows(self, statement: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        async with self._one_connection, self._connect() as conn, conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement, params)
            return await cursor.fetchall()


def _rendered(delivery: Delivery) -> bytes | None:
    """Over this thread's own connection, which may have been lost since it was used last."""
    try:
        return body_of(delivery)
    except (OperationalError, InterfaceError):
        connections.close_all()
        return body_of(delivery)
