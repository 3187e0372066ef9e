"""Retention: finished jobs go when they are old, and their bodies sooner if that is wanted.

Owns how a walk over them is paced, and how far it has come (models/retention.py). Does not own which job may go: that
is in `sql/prune_*.sql`; nor how one job is erased at once (`queue.erase`). Invariant: what is not over, what is still
to be told, and a key that may come again stay, whoever asks. A batch is a transaction of its own, one at a time in the
whole installation; after it the walk pauses for as long as it took, so that half of the time is everybody else's.

A worker's duty goes on from where the last one came to. The command walks from the oldest job on, and so finds what a
transaction of hours brought behind that.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

import psycopg
from psycopg import AsyncConnection

from llmjobs.conf import DAY_S, conf
from llmjobs.database import Connect
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.worker")

EVENTS_MAX = (
    20_000  # of the jobs of one batch: a long answer has thousands, and deleting 20,000 takes a tenth of a second
)
PAUSE_MAX_S = 1.0
BUSY_S = 0.1
OPEN_S = 3_600.0  # how long a transaction that ends a job may be open, for the duty to see it


@dataclass(frozen=True, slots=True)
class Ages:
    """How long ago a job must have finished for it to go, and for its body; None: never."""

    jobs_s: float | None
    bodies_s: float | None


def configured() -> Ages:
    jobs, bodies = conf.keep_jobs_days, conf.keep_bodies_days
    return Ages(jobs * DAY_S if jobs else None, bodies * DAY_S if bodies else None)


class Seen(NamedTuple):
    """A row of prune_pick.sql."""

    id: int
    finished_at: datetime
    is_kept: bool
    has_more: bool
    is_held: bool


class Walk:
    """Over what finished `age_s` ago, the oldest first, batch by batch. `of_bodies`: their jobs stay."""

    def __init__(self, age_s: float, *, of_bodies: bool, from_start: bool) -> None:
        self.age_s, self.of_bodies, self.is_over = age_s, of_bodies, False
        self.removed, self.kept = 0, 0
        self._since: datetime | None = None
        self._after_id = 0
        self._has_begun = from_start
        self._is_back = False

    async def step(self, conn: AsyncConnection[Any], *, every_s: float = 0.0) -> bool:
        """A batch. False: somebody else is at it, or was less than `every_s` ago."""
        rows = conf.prune_rows
        async with conn.transaction():
            is_due, jobs_to, bodies_to, *_ = await _row(conn, "prune_is_due", {"every_s": every_s})
            if not is_due:
                return False
            if not self._has_begun:
                self._since, self._has_begun = bodies_to if self.of_bodies else jobs_to, True
            seen = await self._pick(conn, rows)
            if ids := [row.id for row in seen if row.is_held]:
                statement = load("erase" if self.of_bodies else "prune_jobs")
                await conn.execute(statement, {"ids": ids, "key_kept_s": conf.idempotency_keep_s})
            await self._mark(conn, seen)
        self.removed += len(ids)
        self.kept += sum(row.is_kept and row.has_more for row in seen)
        self.is_over = not seen
        return True

    async def _pick(self, conn: AsyncConnection[Any], rows: int) -> list[Seen]:
        params = {
            "since": self._since, "after_id": self._after_id, "age_s": self.age_s,
            "key_kept_s": conf.idempotency_keep_s,
        }  # fmt: skip
        statement = load("prune_pick", rows=rows, events=EVENTS_MAX, bodies=self.of_bodies)
        cursor = await conn.execute(statement, params)
        return [Seen(*row) for row in await cursor.fetchall()]

    async def _mark(self, conn: AsyncConnection[Any], seen: Sequence[Seen]) -> None:
        """Behind the first that stayed nothing is gone for good, however far this walk goes on."""
        params: dict[str, Any] = {"jobs_to": None, "bodies_to": None, "is_back": False, "open_s": OPEN_S}
        left = next((row.finished_at for row in seen if row.has_more and not row.is_held), None)
        if seen and not self._is_back:
            self._is_back = left is not None
            params |= {"bodies_to" if self.of_bodies else "jobs_to": left or seen[-1].finished_at}
            params["is_back"] = self._is_back
        if seen:
            self._since, self._after_id = seen[-1].finished_at, seen[-1].id
        await conn.execute(load("prune_mark"), params)


class Rest(NamedTuple):
    """What else was removed: workers that are gone, incidents that are over, samples, links that expired."""

    workers: int
    incidents: int
    samples: int
    links: int


def walks(ages: Ages, *, from_start: bool = False) -> Iterator[Walk]:
    """One over the jobs, and then one over the bodies of those that stay."""
    for age_s, of_bodies in ((ages.jobs_s, False), (ages.bodies_s, True)):
        if age_s is not None:
            yield Walk(age_s, of_bodies=of_bodies, from_start=from_start)


async def go(walk: Walk, connect: Connect, told: Callable[[Walk], None], *, waits: bool, every_s: float = 0.0) -> bool:
    """To the walk's end, with `told` after each batch. False: somebody else is at it, and `waits` is not asked for."""
    while not walk.is_over:
        begun = time.monotonic()
        async with connect() as conn:
            is_done = await walk.step(conn, every_s=every_s)
        if not is_done and not waits:
            return False
        if is_done:
            every_s = 0.0
            told(walk)
        await asyncio.sleep(min(time.monotonic() - begun, PAUSE_MAX_S) if is_done else BUSY_S)
    return True


async def remove_rest(conn: AsyncConnection[Any], age_s: float) -> Rest:
    """What is as old as the jobs that go. Bounded: what is left comes with the next round."""
    async with conn.transaction():
        is_due, *_ = await _row(conn, "prune_is_due", {"every_s": 0.0})
        found = await _row(conn, "prune_rest", {"age_s": age_s}, rows=conf.prune_rows) if is_due else (0, 0, 0, 0)
    return Rest(*found)


async def total(conn: AsyncConnection[Any], ages: Ages, *, of_bodies: bool) -> tuple[int, int]:
    """How many jobs, or bodies of jobs that stay, would go, and how many are of that age and stay for now."""
    params = {
        "age_s": ages.bodies_s if of_bodies else ages.jobs_s, "key_kept_s": conf.idempotency_keep_s,
        "younger_than_s": ages.jobs_s if of_bodies else None,
    }  # fmt: skip
    found, kept = await _row(conn, "prune_total", params, bodies=of_bodies)
    return found, kept


async def round_of_duty(connect: Connect) -> None:
    """What a worker does, unless another did it less than conf.prune_every_s ago."""
    ages = configured()
    every_s = conf.prune_every_s * 0.9  # who asks each minute shall not come a moment too early
    for walk in walks(ages):
        if not await go(walk, connect, lambda _: None, waits=False, every_s=every_s):
            return
        every_s = 0.0
        if walk.removed:
            what = "bodies" if walk.of_bodies else "jobs"
            logger.info("event=pruned %s=%s kept=%s", what, walk.removed, walk.kept)
    if ages.jobs_s is not None:
        async with connect() as conn:
            await remove_rest(conn, ages.jobs_s)


async def keep_pruning(connect: Connect) -> NoReturn:
    """The duty, until it is cancelled. By itself: no connection is held in its pauses."""
    while True:
        try:
            await round_of_duty(connect)
        except psycopg.Error as error:
            logger.warning("event=duty_skipped duty=prune reason=%r", str(error).strip().partition("\n")[0])
        await asyncio.sleep(conf.prune_every_s)


async def _row(conn: AsyncConnection[Any], name: str, params: dict[str, Any], **literals: int) -> tuple[Any, ...]:
    """The one row of a statement that has always one."""
    [row] = await (await conn.execute(load(name, **literals), params)).fetchall()
    return row
