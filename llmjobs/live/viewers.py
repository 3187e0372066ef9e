"""Viewers, as the hub sees them: something with a bounded buffer that events are put into.

Owns what a viewer has seen and what waits for it. Invariant: a viewer is shown each event once, in order, whatever
the hub hands to it.
"""

import asyncio
from collections.abc import Iterable, Sequence

from llmjobs.live.rendering import LiveEvent
from llmjobs.states import EventType


class ViewerDropped(Exception):
    """This viewer's connection ends, and may be taken up again after the last event that it was sent."""


# Beside the number of events that may wait for a viewer (conf.viewer_buffer_max), which are small as a rule: their text
# together. One event may be larger, if nothing else waits.
BUFFER_CHARS_MAX = 4_000_000


class Buffer:
    """What waits for one viewer, at most `most` events: filled by the hub, which never waits, emptied by its viewer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chars = 0
        self._events: list[LiveEvent] = []
        self._dropped = ""
        self._filled = asyncio.Event()

    def put(self, events: Sequence[LiveEvent]) -> None:
        if self._dropped or not events:
            return
        self._events += events
        self._chars += sum(len(event.data) for event in events)
        if len(self._events) > self._most or (self._chars > BUFFER_CHARS_MAX and len(self._events) > 1):
            self.drop(f"too slow: {len(self._events)} events were waiting")
        else:
            self._filled.set()

    def drop(self, reason: str) -> None:
        self._events, self._chars = [], 0
        self._dropped = reason
        self._filled.set()

    async def take(self, idle_s: float) -> list[LiveEvent]:
        """Everything that waits; [] if nothing came for `idle_s`. Raises ViewerDropped."""
        if not self._filled.is_set():
            try:
                async with asyncio.timeout(idle_s):
                    await self._filled.wait()
            except TimeoutError:
                return []
        if self._dropped:
            raise ViewerDropped(self._dropped)
        self._filled.clear()
        events, self._events, self._chars = self._events, [], 0
        return events


class JobViewer:
    """Of one job. Until it is live it reads the log for itself and the hub hands it nothing."""

    def __init__(self, job_id: int, position: int, buffer: Buffer) -> None:
        self.job_id, self.position, self.buffer = job_id, position, buffer
        self.is_live = False

    def offer(self, events: Sequence[LiveEvent]) -> int:
        """The hub's events of its job, in order; what it read for itself is among them. Returns how many are new."""
        if not self.is_live or events[-1].seq <= self.position:
            return 0
        new = events if events[0].seq > self.position else [event for event in events if event.seq > self.position]
        self.position = new[-1].seq
        self.buffer.put(new)
        return len(new)


class FeedViewer:
    """Of all jobs of some clients. Its buffer fills from the first moment, also while it still reads what it missed."""

    def __init__(self, client_ids: tuple[int, ...], buffer: Buffer) -> None:
        self.client_ids, self.buffer = client_ids, buffer
        self._replayed: dict[int, int] = {}  # job id: last seq that it read for itself

    def offer(self, events: Sequence[LiveEvent]) -> int:
        self.buffer.put(events)
        return len(events)

    def replayed(self, job_id: int, seq: int) -> None:
        self._replayed[job_id] = seq

    def unseen(self, events: Iterable[LiveEvent]) -> list[LiveEvent]:
        return [event for event in events if event.seq > self._replayed.get(event.job_id, 0)]


class Waiter:
    """Of the end of one job; it is told that a `done` came, and looks for itself."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        self.ended = asyncio.Event()

    def offer(self, events: Sequence[LiveEvent]) -> int:
        if any(event.type == EventType.DONE for event in events):
            self.ended.set()
        return 0
