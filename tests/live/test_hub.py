"""The hub: what it costs, and what it survives."""

import asyncio

import pytest
from django.test import override_settings

from llmjobs.events import EVENTS_CHANNEL, Wake, wake
from llmjobs.live import hub as hub_module
from llmjobs.live import listening, rendering, viewers
from llmjobs.live.hub import Hub, current_hub
from llmjobs.live.reading import Reader, connect
from llmjobs.live.rendering import LiveEvent
from llmjobs.live.threads import in_thread
from llmjobs.live.viewers import Buffer, JobViewer, ViewerDropped
from llmjobs.live.watches import Watches
from llmjobs.states import SEQ_EPOCH
from tests.helpers import aeventually
from tests.live.speaker import Speaker, log_of, running_jobs, speaking
from tests.live.watching import Watched, hears, is_heard_no_more, seen_by

pytestmark = pytest.mark.django_db(transaction=True)


async def test_jobs_that_are_woken_together_are_read_with_one_query(hub, acme, monkeypatch):
    jobs = await in_thread(running_jobs, acme, 10)
    reads: list[int] = []
    original = Reader.after

    async def counted(self, positions):
        reads.append(len(positions))
        return await original(self, positions)

    with override_settings(LLMJOBS_CATCHUP_EVERY_S=3600):
        async with speaking(*jobs) as speakers, Watched(hub, *jobs) as watched:
            await hears(hub, speakers[0])
            for speaker in speakers:
                speaker.is_heard = False
                await speaker.say("hello")
            monkeypatch.setattr(Reader, "after", counted)
            first = jobs[0].epoch * SEQ_EPOCH + 1
            await wake(speakers[0].connection, (EVENTS_CHANNEL, [Wake(j.pk, j.client_id, first) for j in jobs]))
            await watched.have_seen(first)
    assert reads == [10]


async def test_an_event_is_one_object_for_all_its_viewers(hub, job):
    """So that it is rendered once, however many look."""
    async with speaking(job) as [speaker], Watched(hub, job, job, job) as watched:
        [seq] = await speaker.say("hello")
        await watched.have_seen(seq)
    first, second, third = (seen[-1] for seen in watched.seen)
    assert first is second is third
    assert first.frame("http://a") is first.frame("http://b")


async def test_where_listen_is_impossible_viewers_see_everything(hub, job, monkeypatch):
    monkeypatch.setattr(hub_module, "POLL_S", 0.02)
    monkeypatch.setattr(listening, "BACKOFF_FIRST_S", 3600)
    with override_settings(LLMJOBS_LISTEN_DSN="host=127.0.0.1 port=9 dbname=nobody-listens-here"):
        async with speaking(job) as [speaker], Watched(hub, job) as watched:
            await speaker.talk(20)
            await speaker.end()
            await watched.have_seen(3 * SEQ_EPOCH)
    assert [(event.seq, event.type) for event in watched.seen[0]] == await in_thread(log_of, job)


async def test_a_lost_wake_up_costs_a_moment_and_no_event(hub, job):
    """The net under NOTIFY: a look at everything each catchup_every_s."""
    with override_settings(LLMJOBS_CATCHUP_EVERY_S=0.2):
        async with speaking(job) as [speaker], Watched(hub, job) as watched:
            await is_heard_no_more(hub, speaker, watched)
            [seq] = await speaker.say("unheard")
            await watched.have_seen(seq)


@override_settings(LLMJOBS_CATCHUP_EVERY_S=3600)
async def test_a_star_makes_the_hub_look_at_everything(hub, job):
    async with speaking(job) as [speaker], Watched(hub, job) as watched:
        await is_heard_no_more(hub, speaker, watched)
        [seq] = await speaker.say("unheard")
        await wake(speaker.connection, (EVENTS_CHANNEL, ["*"]))
        await watched.have_seen(seq)


@override_settings(LLMJOBS_CATCHUP_EVERY_S=3600)
async def test_broken_connections_are_taken_up_again_where_they_were(hub, job, monkeypatch):
    """As a restart of Postgres breaks them, all at once, in the middle of a stream."""
    monkeypatch.setattr(listening, "BACKOFF_FIRST_S", 0.01)
    async with speaking(job) as [speaker], Watched(hub, job) as watched:
        for _ in range(3):
            await hears(hub, speaker)
            await speaker.talk(5)
            await break_all_but(speaker)
            await speaker.talk(5)
        await speaker.end()
        await watched.have_seen(3 * SEQ_EPOCH)
    assert [(event.seq, event.type) for event in watched.seen[0]] == await in_thread(log_of, job)


@override_settings(LLMJOBS_CATCHUP_EVERY_S=3600)
async def test_a_read_that_failed_is_done_again_without_another_wake_up(hub, job):
    async with speaking(job) as [speaker], Watched(hub, job) as watched:
        await hears(hub, speaker)
        await watched.have_seen(speaker.seq)
        query = "select pg_terminate_backend(%s)"
        await speaker.connection.execute(query, (hub._news._connection.info.backend_pid,))
        [seq] = await speaker.say("hello")
        await watched.have_seen(seq)


@override_settings(LLMJOBS_CATCHUP_EVERY_S=3600)
async def test_what_was_said_while_nobody_listened_is_seen_once_listen_stands(hub, job, monkeypatch):
    monkeypatch.setattr(hub_module, "POLL_S", 3600)
    monkeypatch.setattr(listening, "BACKOFF_FIRST_S", 0.01)
    is_asked, may_listen = asyncio.Event(), asyncio.Event()
    in_round = []
    original = Hub._round

    async def listen_later():
        is_asked.set()
        await may_listen.wait()
        return await connect()

    async def counted(self, woken):
        in_round.append(True)
        try:
            return await original(self, woken)
        finally:
            in_round.pop()

    async def is_idle() -> None:
        assert not in_round and not hub.watches.woken and not hub.watches.awake.is_set()

    monkeypatch.setattr(Hub, "_round", counted)
    async with speaking(job) as [speaker], Watched(hub, job) as watched:
        await hears(hub, speaker)
        monkeypatch.setattr(listening, "connect_to_listen", listen_later)
        await speaker.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%%' and datname = %s",
            (speaker.connection.info.dbname,),
        )
        await is_asked.wait()
        await aeventually(is_idle)
        [seq] = await speaker.say("is anybody there?")
        assert watched.seen[0][-1].seq < seq
        may_listen.set()
        await watched.have_seen(seq)


async def break_all_but(speaker: Speaker) -> None:
    query = """
        select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name = 'llmjobs-live' and pid <> pg_backend_pid()
    """
    ((broken,),) = await (await speaker.connection.execute(query)).fetchall()
    assert broken >= 1  # the ear's, or the hub's, or both


async def test_listen_stands_before_the_first_read(job, monkeypatch):
    """What is logged between a read and a later LISTEN would be missed."""
    may_listen = asyncio.Event()
    reads = []
    original = Reader.page

    async def listen_later():
        await may_listen.wait()
        return await connect()

    async def counted(self, *args):
        reads.append(may_listen.is_set())
        return await original(self, *args)

    monkeypatch.setattr(listening, "connect_to_listen", listen_later)
    monkeypatch.setattr(Reader, "page", counted)
    hub = Hub()
    async with speaking(job) as [speaker]:
        viewer = asyncio.create_task(seen_by(hub, job))
        await speaker.say("hello")
        assert reads == []
        may_listen.set()
        await speaker.end()
        await viewer
    await hub.close()
    assert all(reads) and reads


def test_a_malformed_wake_up_does_not_hide_the_others():
    assert list(listening.wakes("1:2:3 nonsense 4:5 : 6:7:8")) == [Wake(1, 2, 3), Wake(6, 7, 8)]


def said(seq: int, text: str = "") -> LiveEvent:
    return LiveEvent(1, "a", seq, "delta", text, 0)


async def test_a_buffer_that_is_full_is_emptied_and_its_viewer_dropped():
    """What a viewer who does not read costs is bounded."""
    buffer = Buffer(most=10)
    buffer.put([said(1)] * 10)
    assert len(await buffer.take(idle_s=60)) == 10
    buffer.put([said(1)] * 10)
    buffer.put([said(1)])
    buffer.put([said(1)] * 100)
    assert not buffer._events
    with pytest.raises(ViewerDropped, match="too slow"):
        await buffer.take(idle_s=60)


async def test_a_buffer_is_bounded_in_length_too_but_takes_any_one_event():
    """Or a long output could never be shown."""
    buffer = Buffer(most=10)
    buffer.put([said(1, "x" * viewers.BUFFER_CHARS_MAX * 2)])
    assert len(await buffer.take(idle_s=60)) == 1
    buffer.put([said(1, "x" * viewers.BUFFER_CHARS_MAX)])
    buffer.put([said(2, "x")])
    with pytest.raises(ViewerDropped, match="too slow"):
        await buffer.take(idle_s=60)


async def test_a_viewer_leaves_out_what_it_has_read_for_itself(hub):
    viewer = JobViewer(1, 5, Buffer(most=100))
    viewer.is_live = True
    read = [said(seq) for seq in range(3, 9)]
    assert viewer.offer(read[:3]) == 0
    assert viewer.offer(read) == 3
    assert [event.seq for event in await viewer.buffer.take(idle_s=60)] == [6, 7, 8]


async def test_a_hub_that_fails_drops_its_viewers_and_another_takes_its_place(hub, job, monkeypatch):
    """A fault in the hub must be seen by those who watch: they come again and resume."""
    monkeypatch.setattr(Watches, "hand", lambda *args, **kwargs: 1 / 0)
    async with speaking(job) as [speaker]:
        viewer = asyncio.create_task(seen_by(hub, job))

        async def is_dropped() -> None:
            await speaker.say("hello")
            assert viewer.done()

        await aeventually(is_dropped)
        with pytest.raises(ViewerDropped):
            await viewer
        monkeypatch.undo()
        assert current_hub() is not hub
        again = asyncio.create_task(seen_by(current_hub(), job))
        await speaker.end()
        assert await again == await in_thread(log_of, job)
    await current_hub().close()


async def test_a_job_that_can_not_be_rendered_ends_all_the_same(hub, job, monkeypatch):
    """It must not take the sight of the others with it."""

    def refuse(job, **_):
        raise ValueError("what is this?")

    monkeypatch.setattr(rendering, "job_json", refuse)
    async with speaking(job) as [speaker]:
        await speaker.end()
        assert await seen_by(hub, job) == await in_thread(log_of, job)
