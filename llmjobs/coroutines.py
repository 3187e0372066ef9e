"""Coroutines that run side by side: waiting for the first to end, and ending them all."""

import asyncio
from typing import Any

AGAIN_S = 0.5  # how long one that was cancelled may take before it is cancelled again


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancels them until all have ended. Once is not enough: a cancel that comes while a query's answer does is lost
    below psycopg, and the loop that asked would go on for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*waits: Any) -> None:
    """Until one of them ends; its exception, if it has one, is raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    tasks[0].cancel()
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
