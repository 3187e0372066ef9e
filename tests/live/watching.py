"""Who looks, in these tests: followers of the log, straight at the hub."""

import asyncio
from contextlib import aclosing
from typing import Self

from llmjobs.live.following import FollowedJob, follow_job
from llmjobs.live.hub import Hub
from llmjobs.live.rendering import LiveEvent
from llmjobs.live.viewers import JobViewer
from llmjobs.models import Job
from tests.helpers import aeventually
from tests.live.speaker import Speaker


def followed(job: Job) -> FollowedJob:
    return FollowedJob(job.pk, str(job.public_id), job.client_id, job.epoch, job.is_terminal)


async def seen_by(hub: Hub, job: Job, after: int = 0) -> list[tuple[int, str]]:
    """What a viewer is shown to the end: (seq, type)."""
    async with aclosing(follow_job(hub, followed(job), after=after, idle_s=60)) as batches:
        return [(event.seq, event.type) async for events in batches for event in events]


class Watched:
    """Viewers of `jobs`, all of them live; `seen` is what each has been shown so far."""

    def __init__(self, hub: Hub, *jobs: Job) -> None:
        self.hub = hub
        self.jobs: tuple[Job, ...] = jobs
        self.seen: list[list[LiveEvent]] = [[] for _ in jobs]
        self.tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.tasks = [
            asyncio.create_task(self._view(job, seen)) for job, seen in zip(self.jobs, self.seen, strict=True)
        ]
        await aeventually(self._are_live)
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _view(self, job, seen) -> None:
        async with aclosing(follow_job(self.hub, followed(job), after=0, idle_s=60)) as batches:
            async for events in batches:
                seen.extend(events)

    async def _are_live(self) -> None:
        viewers = [viewer for watch in self.hub.watches.jobs.values() for viewer in watch.viewers]
        assert len(viewers) == len(self.jobs) and all(
            isinstance(viewer, JobViewer) and viewer.is_live for viewer in viewers
        )

    async def have_seen(self, seq: int) -> None:
        async def all_have() -> None:
            assert all(seen and seen[-1].seq >= seq for seen in self.seen)

        await aeventually(all_have)


async def hears(hub: Hub, speaker: Speaker) -> None:
    """The hub relies on wake-ups once it has heard one."""

    async def heard() -> None:
        await speaker.say("hello?")
        assert hub.ear.is_hearing

    await aeventually(heard)


async def is_heard_no_more(hub: Hub, speaker: Speaker, watched: Watched) -> None:
    """Nothing that the speaker said is on its way; what it says from here on, no wake-up tells."""
    await hears(hub, speaker)
    await watched.have_seen(speaker.seq)
    speaker.is_heard = False
