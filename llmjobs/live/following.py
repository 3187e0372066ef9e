"""What one viewer is shown, from first to last, as batches of events: the log's past, then the hub's present. No gap,
no repeat.

Owns the order of a viewer's life (see watches.py for the handover). Does not own how batches are sent: sse.py and
consumers.py do. Invariant: a follower holds at most a page of history or a buffer of live events in memory, and no
connection while it waits for its reader.

An empty batch says: nothing to show just now, the line is open. The first batch comes at once, so that errors come
before it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from llmjobs.live.hub import Hub
from llmjobs.live.reading import LogRow
from llmjobs.live.rendering import LiveEvent, epoch_of, live_events, show_jobs
from llmjobs.live.threads import in_thread
from llmjobs.live.viewers import FeedViewer, ViewerDropped

# A key may be revoked and a session may end while somebody watches. So connections end after an hour, for viewers to
# come again and be asked again who they are; they resume where they were.
VIEW_FOR_S = 3600.0

Batch = Sequence[LiveEvent]


@dataclass(frozen=True, slots=True)
class FollowedJob:
    """A job as the database had it when its viewer came."""

    id: int
    public_id: str
    client_id: int
    epoch: int
    is_terminal: bool


async def follow_job(hub: Hub, job: FollowedJob, *, after: int, idle_s: float) -> AsyncGenerator[Batch, None]:
    """The events of `job` with numbers above `after`, to its end; none at all if that was seen already.

    Raises TooManyViewers, ViewerDropped, one of DATABASE_ERRORS.
    """
    with hub.watches.viewing_job(job.id, job.public_id, job.client_id, after) as viewer:
        await hub.ready()
        while not viewer.is_live:
            rows = await hub.history.page(job.id, viewer.position)
            viewer.position = rows[-1].seq if rows else viewer.position
            if _is_whole(rows) and not _is_over(job, viewer.position):
                hub.watches.go_live(viewer)
            events = await show_jobs(live_events(rows, job.public_id), in_thread)
            if not events and _is_over(job, viewer.position):
                return
            yield events
            if events and events[-1].is_last:
                return
        until = _end_of_view()
        while True:
            events = await viewer.buffer.take(idle_s)
            yield events
            if events and events[-1].is_last:
                return
            _check(until)


def _is_over(job: FollowedJob, position: int) -> bool:
    """It had ended when its viewer came, and was not requeued since as far as the log was read."""
    return job.is_terminal and epoch_of(position) <= job.epoch


async def follow_feed(
    hub: Hub, client_ids: tuple[int, ...], *, since_ms: int | None, idle_s: float
) -> AsyncGenerator[tuple[Batch, int], None]:
    """(events, mark) of all jobs of these clients, from now on; with `since_ms` first what was logged since then.

    A mark is the moment (unix time, ms) to resume from, to see what came after this batch. What was logged shortly
    before it is then shown again: (job, seq) tells repeats. Of the past, a client's newest 1,000 jobs are looked at.
    Raises like `follow_job`.
    """
    with hub.watches.viewing_feed(client_ids) as viewer:
        await hub.ready()
        mark_ms = since_ms or 0
        if since_ms is not None:
            async for events in _replay(hub, viewer, since_ms):
                yield events, mark_ms
        yield [], mark_ms
        until = _end_of_view()
        while True:
            events = viewer.unseen(await viewer.buffer.take(idle_s))
            mark_ms = max(mark_ms, *(event.at_ms for event in events)) if events else mark_ms
            yield events, mark_ms
            _check(until)


async def _replay(hub: Hub, viewer: FeedViewer, since_ms: int) -> AsyncGenerator[Batch, None]:
    for job in await hub.history.resumed(viewer.client_ids, since_ms):
        position = job.position
        while True:
            rows = await hub.history.page(job.id, position)
            if rows:
                position = rows[-1].seq
                viewer.replayed(job.id, position)
                yield await show_jobs(live_events(rows, job.public_id), in_thread)
            if _is_whole(rows):
                break


def _is_whole(page: Sequence[LogRow]) -> bool:
    """The log has been read to its end, as it was at that moment."""
    return not page or page[-1].is_newest


def _end_of_view() -> float:
    return asyncio.get_running_loop().time() + VIEW_FOR_S * random.uniform(0.8, 1)  # noqa: S311


def _check(until: float) -> None:
    if asyncio.get_running_loop().time() > until:
        raise ViewerDropped("this connection is an hour old: come again")
