"""The net under the feeds: what lost wake-ups would have said, read out of the log by the ids of its events.

A viewer of one job needs no such net, its job is simply read on; a feed doesn't know which jobs to look at. Ids are
given before commit, so a range is looked at again until it is `MARGIN_S` old. Invariant: a client's feeds are never
told of what was logged before the first came.
"""

import asyncio
from collections import deque
from collections.abc import Collection

from llmjobs.events import Wake
from llmjobs.live.reading import SWEEP_ROWS, Reader

MARGIN_S = 10.0  # a transaction may commit so much later than an event with a greater id


class Sweeper:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._marks: deque[tuple[float, int]] = deque()  # (loop time, id of the last event then), oldest first
        self._begun_at: dict[int, int] = {}  # client id: the last event when its first feed came

    async def wakes(self, client_ids: Collection[int]) -> list[Wake]:
        """For the clients that have feeds now. Raises one of DATABASE_ERRORS; what was due is then due still."""
        if not client_ids:
            self._marks.clear()
            self._begun_at.clear()
            return []
        now, last_id = asyncio.get_running_loop().time(), await self._reader.last_event_id()
        self._begun_at = {client_id: self._begun_at.get(client_id, last_id) for client_id in client_ids}
        while len(self._marks) > 1 and self._marks[1][0] <= now - MARGIN_S:
            self._marks.popleft()
        found: list[Wake] = []
        low = self._marks[0][1] if self._marks else last_id
        while low < last_id:
            high = min(last_id, low + SWEEP_ROWS)
            found += [Wake(*row) for row in await self._reader.changed(low, high, self._begun_at)]
            low = high
        self._marks.append((now, last_id))
        return found
