"""The queue's own statements, without workers: bulk submit, and claim and settle at two sizes of the backlog.

For information: what a change of the SQL is compared with. Claims and settles of 10 jobs, from one connection.
"""

import asyncio
import time
import uuid
from typing import Any

from psycopg import AsyncConnection

from llmjobs import queue
from llmjobs.database import connect_async
from llmjobs.leases import Claimed, Settlement
from llmjobs.models import Client
from tests.bench.ground import SUBMIT_BATCH, Ground, jobs_of
from tests.bench.report import Table, percentile, progress

CLIENTS = {"free": 60, "pro": 30, "enterprise": 10}
CLAIMS, PER_CLAIM = 100, 10
TAKEN = CLAIMS * PER_CLAIM


def measure(ground: Ground, *, is_quick: bool) -> Table:
    table = Table(f"Statements ({PER_CLAIM} jobs a claim, {sum(CLIENTS.values())} clients)")
    clients = [ground.make_client(f"{tier}-{n}", tier) for tier, count in CLIENTS.items() for n in range(count)]
    queued = 0
    for backlog in (1_000, 10_000 if is_quick else 100_000):
        progress(f"statements: submitting up to {backlog:,} jobs")
        rate = _submit(clients, backlog + TAKEN // 2 - queued)  # it is `backlog` halfway through the claims
        table.add(f"bulk submit, {SUBMIT_BATCH} a batch, up to {backlog:,}", f"{rate:,.0f} jobs/s")
        progress(f"statements: {CLAIMS} claims at {backlog:,} queued")
        claims_ms, settles_ms = asyncio.run(_claims(ground.model.id))
        for name, values in (("claim", claims_ms), ("settle", settles_ms)):
            p50, p95 = percentile(values, 50), percentile(values, 95)
            table.add(f"{name} at {backlog:,} queued", f"p50 {p50:.1f} ms, p95 {p95:.1f} ms")
        queued = backlog - TAKEN // 2
    return table


def _submit(clients: list[Client], count: int) -> float:
    """Batches for one client after the other. Jobs a second."""
    batch = min(SUBMIT_BATCH, max(1, count // len(clients)))
    jobs = jobs_of(batch, "Say something. [[tokens=50]]")
    began_at = time.perf_counter()
    for number in range(count // batch):
        queue.submit_many(clients[number % len(clients)], jobs)
    return count / (time.perf_counter() - began_at)


async def _claims(pool_id: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each claim and of each settle, once the inbox is folded."""
    worker = uuid.uuid4()
    claims_ms: list[float] = []
    settles_ms: list[float] = []
    async with await connect_async() as conn:
        while await queue.sweep(conn):
            pass
        while len(claims_ms) < CLAIMS:
            began_at = time.perf_counter()
            claimed = await _claim(conn, worker, pool_id)
            claimed_at = time.perf_counter()
            await _settle(conn, worker, claimed)
            claims_ms.append((claimed_at - began_at) * 1000)
            settles_ms.append((time.perf_counter() - claimed_at) * 1000)
    return claims_ms, settles_ms


async def _claim(conn: AsyncConnection[Any], worker: uuid.UUID, pool_id: int) -> list[Claimed]:
    claim = await queue.claim(conn, worker=worker, pool_id=pool_id, count=PER_CLAIM)
    if len(claim.jobs) != PER_CLAIM:
        raise RuntimeError(f"expected {PER_CLAIM} jobs of a full backlog, got {len(claim.jobs)}")
    return claim.jobs


async def _settle(conn: AsyncConnection[Any], worker: uuid.UUID, claimed: list[Claimed]) -> None:
    ends = [
        Settlement(
            job.id, job.attempt, "completed", "completed", False, 0, "Completed.", output="{}", output_text="said",
            input_tokens=10, output_tokens=50, cost=60.0,
        )
        for job in claimed
    ]  # fmt: skip
    states, _ = await queue.settle(conn, ends, worker=worker)
    if len(states) != len(claimed):
        raise RuntimeError(f"expected {len(claimed)} settled jobs, got {len(states)}")
