"""Incidents are found and told while an operator looks, even where no worker lives to do it.

Once a process and event loop, in the background: what operators see waits for none of it. Does not own what is looked
for (watch.py), nor who is told (incidents.py). Workers do the same; who comes second finds that it was just done.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection

from llmjobs import watch
from llmjobs.conf import conf
from llmjobs.incidents import Teller
from llmjobs.live.reading import DATABASE_ERRORS, connect
from llmjobs.live.threads import in_slow_thread

logger = logging.getLogger(__name__)


def keep_watch() -> None:
    """Asked as often as one likes, by whoever shows operators something: begins a look when it is time."""
    _watchers.setdefault(asyncio.get_running_loop(), _Watcher()).begin()


async def settled() -> None:
    """What has begun is over; its connections are closed."""
    if (watcher := _watchers.get(asyncio.get_running_loop())) is not None:
        await watcher.settled()


class _Watcher:
    def __init__(self) -> None:
        self._next_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._teller = Teller(_connected)

    def begin(self) -> None:
        clock = asyncio.get_running_loop().time()
        if clock < self._next_at or (self._looking is not None and not self._looking.done()):
            return
        self._next_at = clock + conf.watch_every_s
        self._looking = asyncio.create_task(self._look())

    async def settled(self) -> None:
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        try:
            await in_slow_thread(watch.look_here)
            await self._teller.tell()
        except DATABASE_ERRORS as error:
            logger.warning("event=watch_failed reason=%r", str(error).strip().partition("\n")[0])


@asynccontextmanager
async def _connected() -> AsyncIterator[AsyncConnection[Any]]:
    conn = await connect()
    try:
        yield conn
    finally:
        await conn.close()


_watchers: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Watcher]" = WeakKeyDictionary()
