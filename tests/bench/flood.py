"""A client with one job at a time, alone and beside one that has a flood of them queued; in turns: the flood is paused.

Eight slots that are never idle while a job waits, each job held for `SERVICE_S`. Nothing is preempted: beside a flood,
a job waits for the next slot that comes free, which is an eighth of a service or so.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.db import connections

from llmjobs import queue
from llmjobs.models import Client
from tests.bench.backlog import Backlog
from tests.bench.claims import Claimer, claimer
from tests.bench.ground import jobs_of

SLOTS, SERVICE_S = 8, 0.1
FLOODING, ONE = "flooding", "one-at-a-time"


@dataclass(frozen=True, slots=True)
class Took:
    """From before the submit until the claim that brought the job, and until its settle."""

    wait_ms: float
    answer_ms: float


class Flood:
    def __init__(self, backlog: Backlog, jobs: int) -> None:
        self.backlog, self.jobs = backlog, jobs
        self._claimed_at: dict[int, float] = {}
        self._settled: dict[int, asyncio.Event] = {}
        self._is_over = False

    def prepare(self) -> None:
        self.backlog.add_clients([(FLOODING, "pro", 1.0), (ONE, "pro", 1.0)])
        self.backlog.fill(self.jobs, names=[FLOODING])
        self.backlog.analyze()
        self._pause_flood(True)

    async def run(self, *, turns: int, rounds: int) -> dict[bool, list[Took]]:
        """By whether it was alone."""
        self._news = asyncio.Semaphore(0)  # a permit for each submit: who is idle takes it, and claims
        took: dict[bool, list[Took]] = {True: [], False: []}
        async with AsyncExitStack() as stack:
            slots = [
                asyncio.create_task(
                    self._slot(await stack.enter_async_context(claimer(self.backlog.pool_id, self.backlog.database)))
                )
                for _ in range(SLOTS)
            ]
            owner = await Client.objects.select_related("tier").aget(name=ONE)
            await self._one(owner)
            for is_alone in [True, False] * rounds:
                await asyncio.to_thread(self._pause_flood, is_alone)
                await self._settle_down(is_alone)
                took[is_alone] += [await self._one(owner) for _ in range(turns)]
            self._is_over = True
            for _ in slots:
                self._news.release()
            await asyncio.gather(*slots)
            await sync_to_async(connections.close_all)()  # of the thread that submitted
        return took

    async def _settle_down(self, is_alone: bool) -> None:
        """What ran before has ended, or all slots run."""
        if not is_alone:
            for _ in range(SLOTS):
                self._news.release()
        await asyncio.sleep(3 * SERVICE_S)

    async def _one(self, owner: Client) -> Took:
        began_at = time.perf_counter()
        [job] = await sync_to_async(queue.submit_submissions)(owner, jobs_of(1, "Say hello."))
        settled = self._settled.setdefault(job.id, asyncio.Event())
        self._news.release()
        await asyncio.wait_for(settled.wait(), 60)
        ended_at = time.perf_counter()
        return Took((self._claimed_at[job.id] - began_at) * 1000, (ended_at - began_at) * 1000)

    async def _slot(self, worker: Claimer) -> None:
        while not self._is_over:
            jobs, _ = await worker.claim(1)
            if not jobs:
                await self._news.acquire()
                continue
            self._claimed_at[jobs[0].id] = time.perf_counter()
            await asyncio.sleep(SERVICE_S)
            await worker.settle(jobs)
            self._settled.setdefault(jobs[0].id, asyncio.Event()).set()

    def _pause_flood(self, is_paused: bool) -> None:
        with self.backlog.connect() as conn:
            conn.execute("update llmjobs_client set is_paused = %s where name = %s", [is_paused, FLOODING])
