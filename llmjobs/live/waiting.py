"""Waiting for the end of a job, for `GET /api/jobs/{id}?wait=…`: over the hub, with a look at the job underneath.

Importing this module registers `wait_terminal` with events.py. Holds no thread and no connection while it waits.
"""

import asyncio
import logging

from llmjobs import events
from llmjobs.live.hub import Hub, current_hub
from llmjobs.live.reading import DATABASE_ERRORS
from llmjobs.live.viewers import Waiter
from llmjobs.states import TERMINAL

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0  # the net under the hub


async def wait_terminal(job_id: int, timeout_s: float) -> bool:
    """Whether the job is terminal, asked until it is or the time is over. False for a job that does not exist."""
    hub = current_hub()
    deadline = asyncio.get_running_loop().time() + timeout_s
    with hub.watches.waiting(job_id) as waiter:
        await hub.ready()
        while True:
            waiter.ended.clear()
            is_terminal = await _look(hub, waiter)
            left_s = deadline - asyncio.get_running_loop().time()
            if is_terminal is not None or left_s <= 0:
                return bool(is_terminal)
            try:
                async with asyncio.timeout(min(left_s, LOOK_EVERY_S)):
                    await waiter.ended.wait()
            except TimeoutError:
                continue


async def _look(hub: Hub, waiter: Waiter) -> bool | None:
    """None: not yet, or not known just now."""
    try:
        found = await hub.history.state_and_last_seq(waiter.job_id)
    except DATABASE_ERRORS as error:
        logger.warning("event=look_failed error=%r", str(error).strip().partition("\n")[0])
        return None
    if found is None:
        return False
    state, last_seq = found
    hub.watches.begin_at(waiter.job_id, last_seq)
    return True if state in TERMINAL else None


events.set_waiter(wait_terminal)
