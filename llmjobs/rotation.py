"""The pools that may have work, in rotation, and how a worker hears of them.

A pool is told of by NOTIFY, or found by a look at all pools every `poll_s`: a lost wake-up costs a poll. A pool that
was claimed from and may have more goes to the end, so that slots are shared and none is left idle for one pool's sake.
One whose limits are used up rests until they are not.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

import psycopg

from llmjobs import queue
from llmjobs.conf import conf
from llmjobs.database import DATABASE_GONE, Connect, connect_async
from llmjobs.events import WORK_CHANNEL

logger = logging.getLogger("llmjobs.worker")


class Rotation:
    """`only`: pool ids, None for all. `cancelled` is told of leases (job id, attempt) whose cancel was asked for."""

    def __init__(self, *, connect: Connect, only: list[int] | None, cancelled: Callable[[int, int], None]) -> None:
        self._connect, self._only, self._cancelled = connect, only, cancelled
        self._ready: dict[int, None] = {}
        self._closed: dict[int, float] = {}  # until when, of the loop's clock: their limits are used up
        self._left: dict[int, float] = {}  # likewise: this worker can't serve them
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._ready)

    def next(self) -> int:
        """Takes the pool that has waited longest out of the rotation."""
        pool_id = next(iter(self._ready))
        del self._ready[pool_id]
        return pool_id

    def add(self, pool_ids: Iterable[int], *, is_sure: bool = False) -> None:
        """Pools that may have work. One whose limits are used up waits until they are not, unless `is_sure`."""
        for pool_id in pool_ids:
            if self._only is not None and pool_id not in self._only:
                continue
            if not _holds(self._left, pool_id) and (is_sure or not _holds(self._closed, pool_id)):
                self._ready.setdefault(pool_id)
        self.poke()

    def close(self, pool_id: int, for_s: float) -> None:
        """Its limits are used up: leave it alone for so long."""
        self._closed[pool_id] = asyncio.get_running_loop().time() + for_s
        self.wake(pool_id, for_s)

    def open(self, pool_id: int) -> None:
        """It turned out to be open: somebody mended what closed it, or gave back what was reserved."""
        self._closed.pop(pool_id, None)

    def leave(self, pool_id: int, for_s: float) -> bool:
        """Leave it to others for so long, whatever is heard of it. False: it was left already."""
        if _holds(self._left, pool_id):
            return False
        self._left[pool_id] = asyncio.get_running_loop().time() + for_s
        self._ready.pop(pool_id, None)
        self.wake(pool_id, for_s)
        return True

    def wake(self, pool_id: int, in_s: float) -> None:
        """Look at it again after so long."""
        asyncio.get_running_loop().call_later(max(in_s, 0.0), self.add, [pool_id])

    def poke(self) -> None:
        """Look again: a slot is free, a job was moved back into the queue, or the worker is to stop."""
        self._changed.set()

    async def wait(self) -> None:
        """Until something changes, at most `poll_s`."""
        self._changed.clear()
        try:
            async with asyncio.timeout(conf.poll_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def poll(self) -> None:
        while True:
            try:
                async with self._connect() as conn:
                    if pool_ids := await queue.ready_pools(conn):
                        self.add(pool_ids, is_sure=True)  # there is news of it, at least
            except DATABASE_GONE:
                pass  # the claim says so
            await asyncio.sleep(conf.poll_s)

    async def listen(self) -> None:
        while True:
            try:
                async with await connect_async() as conn:
                    await conn.execute(f"listen {WORK_CHANNEL}")
                    async for notice in conn.notifies():
                        self._hear(notice.payload)
            except psycopg.Error as error:
                logger.warning("event=listen_failed reason=%r", str(error).strip().partition("\n")[0])
            await asyncio.sleep(conf.poll_s)

    def _hear(self, payload: str) -> None:
        for entry in payload.split():
            what, _, rest = entry.partition(":")
            numbers = [int(part) for part in rest.split(":") if part.isdecimal()]
            if what == "pool" and len(numbers) == 1:
                self.add(numbers)
            elif what == "cancel" and len(numbers) == 2:
                self._cancelled(*numbers)


def _holds(until: dict[int, float], pool_id: int) -> bool:
    """Whether its time has not come yet; what is over is forgotten."""
    if until.get(pool_id, 0.0) - asyncio.get_running_loop().time() > 0.001:
        return True
    until.pop(pool_id, None)
    return False
