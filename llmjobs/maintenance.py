"""The duties of a worker beside its jobs: stage, expire, reclaim, sweep, count, tally, fall back, sample, prune, tell,
and what operators asked of many jobs.

Each is bounded, safe on all workers, and runs at its own pace, until it finds less than a full batch. When Postgres is
gone a duty skips its turn.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import psycopg
from psycopg import AsyncConnection

from llmjobs import counts, fallback, queue, retention, samples, tallying, watch
from llmjobs.conf import conf
from llmjobs.database import Connect
from llmjobs.events import Wake
from llmjobs.host_calls import PendingCalls
from llmjobs.incidents import Teller
from llmjobs.operation_duty import OperationDuty
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.worker")

FROZEN_S = 5.0  # a pipeline takes milliseconds

Verb = Callable[[AsyncConnection[Any]], Awaitable[list[Wake]]]


class Duties:
    """`moved` is told of the jobs that a duty moved; `poke` asks for a look at the pools; `may_reclaim` is asked before
    any lease is taken for lost.
    """

    def __init__(
        self,
        *,
        connect: Connect,
        moved: Callable[[list[Wake]], None],
        poke: Callable[[], None],
        may_reclaim: Callable[[], bool],
    ) -> None:
        self._connect, self._moved, self._poke, self._may_reclaim = connect, moved, poke, may_reclaim

    def all(self) -> list[Coroutine[Any, Any, None]]:
        """A loop each, until it is cancelled."""
        return [
            self._every("stage", lambda: conf.poll_s, queue.stage),
            self._every("expire", lambda: conf.sweep_every_s, queue.expire),
            self._every("reclaim", lambda: conf.reclaim_every_s, self._reclaim),
            self._every("sweep", lambda: conf.sweep_every_s, _sweep),
            self._every("full sweep", lambda: conf.full_sweep_every_s, _sweep_fully),
            self._every("count", lambda: counts.COUNT_EVERY_S, _count),
            self._every("tally", lambda: tallying.TALLY_EVERY_S, _tally),
            self._every("fall back", lambda: fallback.FALL_BACK_EVERY_S, _fall_back),
            self._every("sample", lambda: samples.SAMPLE_EVERY_S, _sample),
            self._every("watch", lambda: conf.watch_every_s, _watch),
            retention.keep_pruning(self._connect),
            Teller(self._connect).run(),  # by itself: no connection is held while somebody is told
            PendingCalls(self._connect).run(),
            OperationDuty(self._connect).run(),
        ]

    async def _every(self, name: str, pace_s: Callable[[], float], verb: Verb) -> None:
        while True:
            try:
                while len(moved := await self._once(name, verb)) >= queue.DUTY_ROWS:
                    pass
                if moved:
                    self._poke()
            except psycopg.Error as error:
                logger.warning("event=duty_skipped duty=%s reason=%r", name, str(error).strip().partition("\n")[0])
            await asyncio.sleep(pace_s())

    async def _reclaim(self, conn: AsyncConnection[Any]) -> list[Wake]:
        await free_frozen(conn)
        return await queue.reclaim(conn) if self._may_reclaim() else []

    async def _once(self, name: str, verb: Verb) -> list[Wake]:
        async with self._connect() as conn:
            moved = await verb(conn)
        if moved and name == "reclaim":
            logger.warning("event=reclaimed jobs=%s", len(moved))
        self._moved(moved)
        return moved


async def free_frozen(conn: AsyncConnection[Any]) -> list[int]:
    """End the sessions of workers that froze while they sent something: others wait for what these hold."""
    ended = [row[0] for row in await (await conn.execute(load("free_frozen"), {"for_s": FROZEN_S})).fetchall()]
    if ended:
        logger.warning("event=frozen_sessions_ended pids=%s", ended)
    return ended


async def _sweep(conn: AsyncConnection[Any]) -> list[Wake]:
    await queue.sweep(conn)
    return []


async def _sweep_fully(conn: AsyncConnection[Any]) -> list[Wake]:
    await queue.sweep(conn, is_full=True)
    return []


async def _count(conn: AsyncConnection[Any]) -> list[Wake]:
    await counts.count(conn)
    return []


async def _tally(conn: AsyncConnection[Any]) -> list[Wake]:
    await tallying.tally(conn)
    return []


async def _fall_back(conn: AsyncConnection[Any]) -> list[Wake]:
    if moved := await fallback.fall_back(conn):
        logger.info("event=fell_back jobs=%s", len(moved))
    return []  # to who follows a job, nothing happened to it


async def _watch(conn: AsyncConnection[Any]) -> list[Wake]:
    await watch.look(conn)
    return []


async def _sample(conn: AsyncConnection[Any]) -> list[Wake]:
    await samples.sample(conn)
    return []
