"""Fallback: while a pool is blocked, another takes some of its jobs.

Owns which jobs go where, and writes `Job.pool` and `Job.home`; not their state, which stays `queued` (queue.py), nor
what blocks a pool (the fold). A move is told to the claim through the inbox like everything else. Invariant: a job that
was moved is where no claim of its old pool finds it, since claims and moves hold the turnstile.
"""

from typing import Any

from psycopg import AsyncConnection

from llmjobs.conf import conf
from llmjobs.events import WORK_CHANNEL, wake
from llmjobs.folding import SHARD, fold
from llmjobs.sql import load

FALL_BACK_EVERY_S = 1.0  # what a fallback may have waiting, it gets as often
SIZES = (16, 64, 256)  # literal limits in a few sizes, so that few plans exist


async def fall_back(conn: AsyncConnection[Any]) -> list[int]:
    """Hand queued jobs of blocked pools to their fallbacks, and wake workers for these. Returns the jobs' ids.

    Bounded by conf.fallback_waiting_max, so that most are still at home when it opens. One worker at a time.
    """
    moved: dict[int, list[int]] = {}
    size = next((n for n in SIZES if n >= conf.fallback_waiting_max), SIZES[-1])
    async with conn.transaction():
        await conn.execute(load("pin_reads"))
        cursor = await conn.execute(load("fall_back_is_due"), {"shard": SHARD})
        if due := await cursor.fetchall():
            await fold(conn)  # what has come since the last claim has heads too
        for pool_id, fallback_id, is_probing in due:
            params = {
                "pool": pool_id, "fallback": fallback_id, "most": conf.fallback_waiting_max, "is_probing": is_probing,
            }  # fmt: skip
            rows = await (await conn.execute(load("fall_back", n=size), params)).fetchall()
            moved.setdefault(fallback_id, []).extend(row[0] for row in rows)
    await wake(conn, (WORK_CHANNEL, [f"pool:{pool_id}" for pool_id, jobs in moved.items() if jobs]))
    return [job_id for jobs in moved.values() for job_id in jobs]
