"""The queue's own statements, without workers: bulk submit, and claim and settle at two sizes of the backlog.

For information: what a change of the SQL is compared with. Claims and settles of 10 jobs, from one connection.
"""

import asyncio
import time

from llmjobs import queue
from llmjobs.models import Client
from tests.bench.claims import claimer
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
        queue.submit_submissions(clients[number % len(clients)], jobs)
    return count / (time.perf_counter() - began_at)


async def _claims(pool_id: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each claim and of each settle, once the inbox is folded."""
    claims_ms: list[float] = []
    settles_ms: list[float] = []
    async with claimer(pool_id) as one:
        await one.fold()
        for _ in range(CLAIMS):
            claimed, took_ms = await one.claim_all(PER_CLAIM)
            claims_ms.append(took_ms)
            settles_ms.append(await one.settle(claimed))
    return claims_ms, settles_ms
