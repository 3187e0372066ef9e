"""A claimer of the benchmark: one connection to one database, claims that are timed, settles that need not be."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from llmjobs import counts, queue
from llmjobs.database import dsn
from llmjobs.folding import fold
from llmjobs.leases import Claimed, Settlement


class Claimer:
    def __init__(self, conn: AsyncConnection[Any], pool_id: int) -> None:
        self.conn, self.pool_id, self.worker = conn, pool_id, uuid.uuid4()

    async def claim(self, count: int) -> tuple[list[Claimed], float]:
        """As a worker claims: again at once while that may bring more. The jobs, and milliseconds."""
        began_at = time.perf_counter()
        jobs: list[Claimed] = []
        exclude: list[int] = []
        while len(jobs) < count:
            claim = await queue.claim(
                self.conn, worker=self.worker, pool_id=self.pool_id, count=count - len(jobs), exclude=exclude
            )
            jobs += claim.jobs
            exclude += claim.skipped
            if not claim.again:
                break
        return jobs, (time.perf_counter() - began_at) * 1000

    async def claim_all(self, count: int) -> tuple[list[Claimed], float]:
        """`claim`, of a backlog that has so many."""
        jobs, took_ms = await self.claim(count)
        if len(jobs) != count:
            raise RuntimeError(f"expected {count} jobs of a full backlog, got {len(jobs)}")
        return jobs, took_ms

    async def settle(self, claimed: Sequence[Claimed]) -> float:
        """All of them completed, at the cost that was charged. Milliseconds."""
        return await self.settle_at([(job, job.charged) for job in claimed])

    async def settle_at(self, ended: Sequence[tuple[Claimed, float | None]]) -> float:
        """Each at its own cost, None for no correction. Milliseconds."""
        began_at = time.perf_counter()
        states, _ = await queue.settle(self.conn, [_completed(*end) for end in ended], worker=self.worker)
        if len(states) != len(ended):
            raise RuntimeError(f"expected {len(ended)} settled jobs, got {len(states)}")
        return (time.perf_counter() - began_at) * 1000

    async def count(self) -> None:
        """What a worker does once a second: the counts that limits and statistics read."""
        await counts.count(self.conn)

    async def fold(self) -> None:
        """The whole inbox, to its end."""
        for _ in range(10_000):
            async with self.conn.transaction():
                cursor = await fold(self.conn, is_sweep=True)
                taken, more, *_ = await cursor.fetchone()
            if not taken and not more:
                return
        raise RuntimeError("the inbox has no end")


def _completed(job: Claimed, cost: float | None) -> Settlement:
    return Settlement(
        job.id, job.attempt, "completed", "completed", False, 0, "Completed.", output="{}", output_text="said",
        input_tokens=10, output_tokens=50, cost=cost,
    )  # fmt: skip


@asynccontextmanager
async def claimer(pool_id: int, database: str | None = None) -> AsyncIterator[Claimer]:
    """Into `database`, or into the one that is in use; prepared statements as a worker's connections have them."""
    where = {} if database is None else {"dbname": database}
    async with await AsyncConnection.connect(**dsn() | where) as conn:
        yield Claimer(conn, pool_id)
