"""Who follows which job in this process, up to where each was read, and which are to be read on. Memory alone:
nothing here waits.

Owns positions and wake-ups. Does not own reading (hub.py), nor what a viewer has seen (viewers.py).

The handover of a viewer who comes late, which must leave no gap and no repeat:
  1. the viewer attaches: its job is watched from now on, but nothing is handed to it yet;
  2. it reads pages of the log for itself, up to the newest event;
  3. in one step: if no more was handed out than it has read, it is live from here on; else it goes back to 2.
Whatever is logged after its last page comes after the job's position too, and so will be handed out; of what is handed
out a live viewer leaves out what it has read already.

Invariant: a job's position falls back, to None or to an earlier number, only together with a wake-up of that job.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from llmjobs.conf import conf
from llmjobs.events import Wake
from llmjobs.live.rendering import LiveEvent
from llmjobs.live.viewers import Buffer, FeedViewer, JobViewer, Waiter

FEED_BUFFER_TIMES = 10  # a feed is handed what its client's jobs say in one round, all together
FED_JOBS_MAX = 10_000  # jobs whose position is kept for feeds alone; who was silent longest is forgotten first


class TooManyViewers(Exception):
    """The client has `conf.viewers_per_client_max` viewers in this process already."""


@dataclass(slots=True)
class Watch:
    """`position`: the last event that was handed out; None: nobody has said yet where to begin."""

    position: int | None = None
    public_id: str = ""
    viewers: set[JobViewer | Waiter] = field(default_factory=set)
    fed_client_id: int | None = None  # its client, if the feeds of that are to be handed its events


class Watches:
    def __init__(self) -> None:
        self.jobs: OrderedDict[int, Watch] = OrderedDict()
        self.feeds: dict[int, set[FeedViewer]] = {}  # by client id
        self.woken: set[int] = set()
        self.sweep_is_due = False
        self.awake = asyncio.Event()
        self._viewer_count: Counter[int] = Counter()  # by client id

    # Viewers come and go.

    @contextmanager
    def viewing_job(self, job_id: int, public_id: str, client_id: int, after: int) -> Iterator[JobViewer]:
        """A viewer of one job, who is not live yet. Raises TooManyViewers."""
        with self._counted((client_id,)):
            viewer = JobViewer(job_id, after, Buffer(conf.viewer_buffer_max))
            with self._watching(viewer) as watch:
                watch.public_id = public_id
                yield viewer

    @contextmanager
    def viewing_feed(self, client_ids: tuple[int, ...]) -> Iterator[FeedViewer]:
        """A viewer of all jobs of these clients, from now on. Raises TooManyViewers."""
        with self._counted(client_ids):
            viewer = FeedViewer(client_ids, Buffer(conf.viewer_buffer_max * FEED_BUFFER_TIMES))
            for client_id in client_ids:
                self.feeds.setdefault(client_id, set()).add(viewer)
            self._sweep_soon()
            try:
                yield viewer
            finally:
                for client_id in client_ids:
                    self._leave_feed(client_id, viewer)

    @contextmanager
    def waiting(self, job_id: int) -> Iterator[Waiter]:
        waiter = Waiter(job_id)
        with self._watching(waiter):
            yield waiter

    def go_live(self, viewer: JobViewer) -> bool:
        """Step 3 of the handover. False: more was handed out than the viewer has read."""
        viewer.is_live = self.begin_at(viewer.job_id, viewer.position)
        return viewer.is_live

    def begin_at(self, job_id: int, position: int) -> bool:
        """Somebody has read the job up to `position`. False: more than that was handed out already."""
        watch = self.jobs[job_id]
        if watch.position is not None and watch.position > position:
            return False
        if watch.position is None:
            watch.position = position
        self._wake(job_id)
        return True

    def viewers(self) -> Iterator[JobViewer | FeedViewer]:
        for watch in self.jobs.values():
            yield from (viewer for viewer in watch.viewers if isinstance(viewer, JobViewer))
        for feeds in self.feeds.values():
            yield from feeds

    @contextmanager
    def _counted(self, client_ids: tuple[int, ...]) -> Iterator[None]:
        for client_id in client_ids:
            if self._viewer_count[client_id] >= conf.viewers_per_client_max:
                raise TooManyViewers(
                    f"This client has {conf.viewers_per_client_max} viewers here, and may have no more."
                )
        self._viewer_count.update(client_ids)
        try:
            yield
        finally:
            self._viewer_count.subtract(client_ids)
            self._viewer_count += Counter()  # drops the zeros

    @contextmanager
    def _watching(self, viewer: JobViewer | Waiter) -> Iterator[Watch]:
        watch = self.jobs.setdefault(viewer.job_id, Watch())
        watch.viewers.add(viewer)
        try:
            yield watch
        finally:
            watch.viewers.discard(viewer)
            self._forget_unless_needed(viewer.job_id)

    def _leave_feed(self, client_id: int, viewer: FeedViewer) -> None:
        feeds = self.feeds[client_id]
        feeds.discard(viewer)
        if not feeds:
            del self.feeds[client_id]
            for job_id, watch in list(self.jobs.items()):
                if watch.fed_client_id == client_id:
                    watch.fed_client_id = None
                    self._forget_unless_needed(job_id)

    def _forget_unless_needed(self, job_id: int) -> None:
        watch = self.jobs[job_id]
        if not watch.viewers and watch.fed_client_id is None:
            del self.jobs[job_id]

    # There is more to read.

    def heard(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            watch = self.jobs.get(wake.job_id)
            if wake.client_id in self.feeds and (watch is None or watch.fed_client_id is None):
                watch = self._feed_from(wake)
            if watch is not None and watch.position is not None:
                self.jobs.move_to_end(wake.job_id)
                self._wake(wake.job_id)

    def look_at_all(self) -> None:
        """Wake-ups may have been lost. Jobs with viewers are read on; what feeds may have missed is swept up."""
        for job_id, watch in self.jobs.items():
            if watch.viewers and watch.position is not None:
                self.woken.add(job_id)
        self._sweep_soon()

    def take_woken(self) -> set[int]:
        self.awake.clear()
        woken, self.woken = self.woken, set()
        return woken

    def put_back(self, woken: set[int]) -> None:
        self.woken |= woken
        self.awake.set()

    def _feed_from(self, wake: Wake) -> Watch:
        """Feeds get this job's events from the wake-up's first one on, whoever has seen some of them already."""
        watch = self.jobs.setdefault(wake.job_id, Watch())
        watch.fed_client_id = wake.client_id
        before = wake.seq - 1
        watch.position = before if watch.position is None else min(watch.position, before)
        return watch

    def _wake(self, job_id: int) -> None:
        self.woken.add(job_id)
        self.awake.set()

    def _sweep_soon(self) -> None:
        self.sweep_is_due = True
        self.awake.set()

    # It was read.

    def positions(self, job_ids: Iterable[int]) -> dict[int, int]:
        """Where to read on, for those that are watched still."""
        watched = ((job_id, self.jobs[job_id].position) for job_id in sorted(job_ids) if job_id in self.jobs)
        return {job_id: position for job_id, position in watched if position is not None}

    def hand(self, events: Sequence[LiveEvent], *, read_from: int, is_all: bool) -> int:
        """Events of one job, read from its position on. Returns events times viewers."""
        job_id = events[0].job_id
        watch = self.jobs.get(job_id)
        if watch is None or watch.position != read_from:  # it fell back during the read, and was woken for that
            return 0
        watch.position = events[-1].seq
        if not is_all:
            self._wake(job_id)
        handed = sum(viewer.offer(events) for viewer in tuple(watch.viewers))
        if watch.fed_client_id is not None:
            handed += sum(feed.offer(events) for feed in tuple(self.feeds.get(watch.fed_client_id, ())))
        return handed

    def forget_the_most_silent(self) -> None:
        """Jobs that are watched for feeds alone and have nothing unread, where they are too many."""
        silent = (job_id for job_id, watch in self.jobs.items() if not watch.viewers and job_id not in self.woken)
        for job_id in list(islice(silent, max(0, len(self.jobs) - FED_JOBS_MAX))):
            del self.jobs[job_id]
