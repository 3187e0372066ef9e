"""PgQueuer: enqueue no-op jobs in batches, then drain them with one worker. Prints {"submit_s", "drain_s"} as JSON.

drain_pgqueuer.py URL COUNT BATCH
"""

import asyncio
import datetime
import json
import sys
import time

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

BATCH = 1_000


async def main(url: str, count: int, batch: int) -> None:
    driver = AsyncpgDriver(await asyncpg.connect(url))
    queries = Queries(driver)
    await queries.install()
    began_at = time.perf_counter()
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        await queries.enqueue(["noop"] * size, [b"hello " * 40] * size, [0] * size)
    submitted_at = time.perf_counter()
    worker, done = PgQueuer(driver), 0

    @worker.entrypoint("noop")
    async def noop(job: object) -> None:
        nonlocal done
        done += 1
        if done == count:
            worker.shutdown.set()

    await worker.run(dequeue_timeout=datetime.timedelta(seconds=1), batch_size=batch)
    drained_at = time.perf_counter()
    print(json.dumps({"submit_s": submitted_at - began_at, "drain_s": drained_at - submitted_at}))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
