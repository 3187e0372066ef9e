"""Past and present meet in the middle: whoever comes, whenever, is shown the log as it is, once and in order."""

import asyncio
from contextlib import aclosing

import pytest

from llmjobs import queue
from llmjobs.live import reading
from llmjobs.live.following import follow_job
from llmjobs.live.rendering import LiveEvent
from llmjobs.live.threads import in_thread
from llmjobs.models import Job
from llmjobs.states import SEQ_EPOCH, State
from tests.factories import make_job
from tests.live.speaker import Speaker, log_of, speaking
from tests.live.watching import followed, seen_by

pytestmark = pytest.mark.django_db(transaction=True)


async def speak_to_the_end(speaker: Speaker, ticks: int) -> None:
    await speaker.talk(ticks)
    await speaker.end()


async def test_viewers_who_come_at_any_moment_of_a_stream_see_all_of_it_once(hub, job, monkeypatch):
    """Pages are small, so that each viewer crosses from history to live while the writer writes."""
    monkeypatch.setattr(reading, "PAGE_ROWS", 7)
    async with speaking(job) as [speaker]:
        viewers = []
        for _ in range(60):
            viewers.append(asyncio.create_task(seen_by(hub, job)))
            await speaker.talk(5)
        await speaker.end()
        seen = await asyncio.gather(*viewers)
    log = await in_thread(log_of, job)
    assert len(log) == 303
    assert all(one == log for one in seen)


async def test_a_viewer_who_resumes_sees_what_comes_after_and_nothing_else(hub, job):
    async with speaking(job) as [speaker]:
        numbers = await speaker.say(*"abcdefghij")
        resumed = [asyncio.create_task(seen_by(hub, job, after=number)) for number in numbers]
        await speak_to_the_end(speaker, 20)
        seen = await asyncio.gather(*resumed)
    log = await in_thread(log_of, job)
    for number, one in zip(numbers, seen, strict=True):
        assert one == [entry for entry in log if entry[0] > number]


async def test_history_is_read_in_pages(hub, job):
    """A long log costs a viewer's memory a page at a time."""
    async with speaking(job) as [speaker]:
        await speaker.say(*("x" * 1200))
        async with aclosing(follow_job(hub, followed(job), after=0, idle_s=60)) as batches:
            sizes = [len(await anext(batches)) for _ in range(3)]
    assert sizes == [500, 500, 202]


async def test_large_events_make_small_pages_and_small_rounds(hub, job, monkeypatch):
    monkeypatch.setattr(reading, "PAGE_BYTES", 30_000)
    monkeypatch.setattr(reading, "ROUND_BYTES", 30_000)
    async with speaking(job) as [speaker]:
        for _ in range(5):
            await speaker.say("x" * 20_000, "y" * 40_000, "z")
        early = asyncio.create_task(seen_by(hub, job))
        for _ in range(5):
            await speaker.say("x" * 20_000, "y" * 40_000, "z")
        await speaker.end()
        assert await early == await in_thread(log_of, job)
    async with aclosing(follow_job(hub, followed(job), after=2 * SEQ_EPOCH, idle_s=60)) as batches:
        sizes = [len(await anext(batches)) for _ in range(4)]
    assert sizes == [1, 1, 2, 1]


async def test_a_job_in_which_nothing_happens_opens_its_line_at_once(hub, job):
    async with aclosing(follow_job(hub, followed(job), after=2 * SEQ_EPOCH, idle_s=60)) as batches:
        assert await anext(batches) == []


async def test_a_finished_job_is_shown_and_over(hub, acme):
    job = await in_thread(make_finished, acme)
    assert await seen_by(hub, job) == await in_thread(log_of, job)


async def test_who_has_seen_the_end_is_shown_nothing(hub, acme):
    job = await in_thread(make_finished, acme)
    assert await seen_by(hub, job, after=3 * SEQ_EPOCH) == []


async def test_an_end_that_was_undone_by_a_requeue_is_not_the_end(hub, acme):
    """`done` of an earlier life says so, and the viewer stays for the next."""
    job = await in_thread(make_requeued, acme)
    seen: list[LiveEvent] = []
    async with aclosing(follow_job(hub, followed(job), after=0, idle_s=60)) as batches:
        seen += await anext(batches)
        assert [event.type for event in seen] == ["status", "status", "done", "status"]
        assert '"superseded": true' in seen[2].data and not seen[2].is_last
        await in_thread(cancel, job)
        async for events in batches:
            seen += events
    assert seen[-1].is_last and '"status": "cancelled"' in seen[-1].data
    assert [(event.seq, event.type) for event in seen] == await in_thread(log_of, job)


def make_finished(client) -> Job:
    return make_job(State.COMPLETED, client=client)


def make_requeued(client) -> Job:
    job = make_job(State.DEAD, client=client)
    assert queue.requeue([job.pk]) == [job.pk]
    return Job.objects.get(pk=job.pk)


def cancel(job: Job) -> None:
    assert queue.cancel([job.pk]) == [job.pk]
