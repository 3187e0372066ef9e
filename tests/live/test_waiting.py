"""Waiting for the end of a job, as `GET /api/jobs/{id}?wait=30` does."""

import asyncio

import pytest
from django.test import override_settings

from llmjobs import events
from llmjobs.events import EVENTS_CHANNEL, wake
from llmjobs.live import hub as hub_module
from llmjobs.live import waiting
from llmjobs.live.threads import in_thread
from llmjobs.live.waiting import wait_terminal
from llmjobs.models import Job
from llmjobs.sql import load
from llmjobs.states import State
from tests.factories import make_job
from tests.helpers import aeventually
from tests.live.speaker import speaking
from tests.live.watching import hears

pytestmark = pytest.mark.django_db(transaction=True)


async def waits(hub) -> None:
    async def has_begun() -> None:
        assert any(watch.position is not None for watch in hub.watches.jobs.values())

    await aeventually(has_begun)


async def test_events_py_waits_through_the_hub():
    assert events._waiter is wait_terminal


async def test_a_job_that_has_ended_is_not_waited_for(hub, acme):
    job = await in_thread(lambda: make_job(State.DEAD, client=acme))
    assert await wait_terminal(job.pk, 60) is True
    assert await wait_terminal(job.pk, 0) is True


async def test_the_end_is_told_at_once(hub, job, monkeypatch):
    """By the wake-up, long before the next look."""
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 3600)
    with override_settings(LLMJOBS_CATCHUP_EVERY_S=3600):
        async with speaking(job) as [speaker]:
            waiter = asyncio.create_task(wait_terminal(job.pk, 60))
            await waits(hub)
            await hears(hub, speaker)
            assert not waiter.done()
            await speaker.end()
            async with asyncio.timeout(10):
                assert await waiter is True
    assert not hub.watches.jobs


async def test_where_listen_is_impossible_the_end_is_told_all_the_same(hub, job, monkeypatch):
    monkeypatch.setattr(hub_module, "POLL_S", 3600)
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.02)
    with override_settings(LLMJOBS_LISTEN_DSN="host=127.0.0.1 port=9 dbname=nobody-listens-here"):
        async with speaking(job) as [speaker]:
            waiter = asyncio.create_task(wait_terminal(job.pk, 60))
            await waits(hub)
            await speaker.end(State.CANCELLED)
            assert await waiter is True


async def test_the_time_is_kept(hub, job):
    assert await wait_terminal(job.pk, 0.1) is False
    assert await wait_terminal(job.pk, 0) is False
    assert not hub.watches.jobs


async def test_a_job_that_does_not_exist_is_not_waited_for(hub):
    assert await wait_terminal(10**12, 60) is False


async def test_an_end_that_was_undone_at_once_is_no_end(hub, job, monkeypatch):
    """Its `done` makes the waiter look, and wait on."""
    looks = []
    look = waiting._look

    async def counted(*args):
        looks.append(1)
        return await look(*args)

    monkeypatch.setattr(waiting, "_look", counted)
    async with speaking(job) as [speaker]:
        waiter = asyncio.create_task(wait_terminal(job.pk, 1))
        await waits(hub)
        async with speaker.connection.transaction():
            speaker.is_heard = False
            await speaker.end(State.DEAD)
            await speaker.connection.execute(load("requeue"), {"ids": [job.pk], "pool": None, "keeps_time": False})
        await wake(speaker.connection, (EVENTS_CHANNEL, ["*"]))
        assert await waiter is False
    assert 2 <= len(looks) <= 4


async def test_many_may_wait_for_one_job(hub, job):
    async with speaking(job) as [speaker]:
        waiters = [asyncio.create_task(wait_terminal(job.pk, 60)) for _ in range(50)]
        await waits(hub)
        await speaker.end()
        assert await asyncio.gather(*waiters) == [True] * 50
    assert await in_thread(lambda: Job.objects.get(pk=job.pk).state) == State.COMPLETED
