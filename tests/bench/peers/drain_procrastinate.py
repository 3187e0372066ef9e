"""Procrastinate: defer no-op jobs in batches, then drain them with one worker. Prints {"submit_s", "drain_s"} as JSON.

drain_procrastinate.py URL COUNT SLOTS
"""

import asyncio
import json
import sys
import time

import procrastinate

BATCH = 1_000
url, count, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=4, max_size=10))
done = 0


@app.task(name="noop")
async def noop(number: int, text: str) -> None:
    global done
    done += 1


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        began_at = time.perf_counter()
        for start in range(0, count, BATCH):
            numbers = range(start, min(count, start + BATCH))
            await noop.batch_defer_async(*[{"number": number, "text": "hello " * 40} for number in numbers])
        submitted_at = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=slots, install_signal_handlers=False, listen_notify=False)
        drained_at = time.perf_counter()
    assert done == count, f"expected {count} jobs, {done} ran"
    print(json.dumps({"submit_s": submitted_at - began_at, "drain_s": drained_at - submitted_at}))


asyncio.run(main())
