"""The ear: one LISTEN connection a process, taken up again whenever it breaks.

Owns how a wake-up is heard and parsed. Does not own what follows: it calls the hub. Invariants: LISTEN stands before
the hub's first read; after every (re)connection everything is looked at, because what was said meanwhile was not
heard.

Where LISTEN can't work (no connection, or a pooler in transaction mode, through which it succeeds and stays silent)
`is_hearing` stays false, and the hub polls.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from psycopg import sql

from llmjobs.events import EVENTS_CHANNEL, LOOK_AT_ALL, Wake
from llmjobs.live.reading import DATABASE_ERRORS, connect_to_listen

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0
PROBE_EVERY_S = 30.0  # the connection is asked whether it still stands; silent for so long, it is not relied on


class Ear:
    """Calls `heard` with the wake-ups of a payload, and `missed` where some may have been lost."""

    def __init__(self, *, heard: Callable[[list[Wake]], None], missed: Callable[[], None]) -> None:
        self._heard, self._missed = heard, missed
        self.is_hearing = False  # a wake-up came over the present connection lately
        self._tried = asyncio.Event()

    async def tried(self) -> None:
        """Waits until LISTEN stands, or until it is known that it can't just now."""
        await self._tried.wait()

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                async with aclosing(self._listening()) as silences:
                    async for _ in silences:
                        failures = 0
            except DATABASE_ERRORS as error:
                failures += 1
                logger.warning(
                    "event=listen_lost failures=%d error=%r", failures, str(error).strip().partition("\n")[0]
                )
            self.is_hearing = False
            self._tried.set()
            self._missed()
            most_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(failures, 10))
            await asyncio.sleep(most_s * random.uniform(0.5, 1))  # noqa: S311

    async def _listening(self) -> AsyncGenerator[None, None]:
        """Yields once LISTEN stands, and every PROBE_EVERY_S; ends only by raising."""
        connection = await connect_to_listen()
        try:
            await connection.execute(sql.SQL("listen {}").format(sql.Identifier(EVENTS_CHANNEL)))
            self._tried.set()
            self._missed()
            while True:
                yield
                is_hearing = False
                async for notification in connection.notifies(timeout=PROBE_EVERY_S):
                    is_hearing = True
                    self._take(notification.payload)
                self.is_hearing = is_hearing
                await connection.execute("select 1")
        finally:
            await connection.close()

    def _take(self, payload: str) -> None:
        self.is_hearing = True
        if LOOK_AT_ALL in payload.split():
            self._missed()
        else:
            self._heard(list(wakes(payload)))


def wakes(payload: str) -> Iterator[Wake]:
    """The entries of a payload. Entries of another shape are skipped: anybody who can connect can notify."""
    for entry in payload.split():
        try:
            job_id, client_id, seq = map(int, entry.split(":"))
        except ValueError:
            logger.warning("event=wake_malformed expected=job:client:seq got=%r", entry[:100])
        else:
            yield Wake(job_id, client_id, seq)
