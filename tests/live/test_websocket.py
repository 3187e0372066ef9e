"""`/ws/jobs/{id}/`: the same events as frames, and how a connection is refused and ends."""

import asyncio
import uuid

import pytest
from django.test import override_settings

from llmjobs.live import consumers, following
from llmjobs.live.threads import in_thread
from llmjobs.models import Job
from llmjobs.states import SEQ_EPOCH, State
from tests.factories import make_client, make_job, make_key
from tests.helpers import aeventually
from tests.live.callers import ORIGIN, Closed, Socket, Stream, closed_at, has_nothing, session_of
from tests.live.speaker import log_of, speaking

pytestmark = pytest.mark.django_db(transaction=True)


def socket_of(job: Job, query: str = "") -> str:
    return f"/ws/jobs/{job.public_id}/{query}"


async def test_a_socket_shows_what_a_stream_shows(job, key):
    async with speaking(job) as [speaker], Socket(socket_of(job), key) as socket:
        assert socket.subprotocol == "llmjobs"
        seen = await socket.next(2)
        await speaker.say("Hel", "lo")
        await speaker.end(text="Hello")
        rest, closed = await socket.rest()
        seen += rest
    assert closed.code == 1000
    assert [(frame["seq"], frame["type"]) for frame in seen] == await in_thread(log_of, job)
    async with Stream(f"/api/jobs/{job.public_id}/events", key) as stream:
        assert [{"seq": e["id"], "type": e["event"], "data": e["data"]} for e in await stream.rest()] == seen


async def test_a_returning_viewer_names_what_it_saw_last(job, key):
    async with speaking(job) as [speaker]:
        numbers = await speaker.say("a", "b", "c")
        async with Socket(socket_of(job, f"?after={numbers[1]}"), key) as socket:
            assert [frame["seq"] for frame in await socket.next()] == [numbers[2]]
            await has_nothing(socket)


async def test_who_has_seen_the_end_is_let_go(acme, key):
    job = await in_thread(lambda: make_job(State.FAILED, client=acme))
    async with Socket(socket_of(job, f"?after={3 * SEQ_EPOCH}"), key) as socket:
        seen, closed = await socket.rest()
    assert (seen, closed.code) == ([], 1000)


async def test_strangers_are_closed_with_4404_whatever_there_is(job, acme):
    """Accepted first: a browser sees a close code only of a connection that was open."""
    stranger = await in_thread(lambda: make_key(make_client()))
    someone = await in_thread(lambda: session_of(make_client()))
    assert await closed_at(socket_of(job), stranger) == 4404
    assert await closed_at(socket_of(job), "llmj_wrong") == 4404
    assert await closed_at(f"/ws/jobs/{uuid.uuid4()}/", stranger) == 4404
    assert await closed_at("/ws/jobs/nonsense/", stranger) == 4404
    assert await closed_at(socket_of(job), origin=ORIGIN) == 4404
    assert await closed_at(socket_of(job), origin=ORIGIN, cookie=someone) == 4404
    assert await closed_at(socket_of(job), origin=ORIGIN, cookie="sessionid=forged") == 4404


@pytest.mark.parametrize("after", ["x", "-1", "1e3", str(2**63)])
async def test_a_malformed_position_is_closed_with_4400_and_said_why(job, key, after):
    async with Socket(socket_of(job, f"?after={after}"), key) as socket:
        _, closed = await socket.rest()
    assert closed.code == 4400
    assert "expected a whole number" in closed.reason


async def test_a_session_is_enough_for_a_page_of_this_site(job, acme):
    for cookie in (
        await in_thread(lambda: session_of(acme)),
        await in_thread(lambda: session_of(is_operator=True)),
    ):
        async with Socket(socket_of(job), origin=ORIGIN, cookie=cookie) as socket:
            assert socket.subprotocol is None
            assert len(await socket.next(2)) == 2


async def test_another_sites_page_is_not_let_in(job, acme, key):
    """The browser would send the session's cookie along."""
    cookie = await in_thread(lambda: session_of(acme))
    for origin in ("http://evil.example", "null", "http://testserver.evil.example", ""):
        with pytest.raises(Closed):
            await closed_at(socket_of(job), origin=origin, cookie=cookie)
        with pytest.raises(Closed):
            await closed_at(socket_of(job), key, origin=origin)


async def test_without_an_origin_only_a_key_is_let_in(job, acme, key):
    """Programs name no origin; browsers always do, so a session without one is forged."""
    cookie = await in_thread(lambda: session_of(acme))
    with pytest.raises(Closed):
        await closed_at(socket_of(job), cookie=cookie)
    async with Socket(socket_of(job), key) as socket:
        await socket.next(2)


async def test_an_unknown_address_is_not_accepted(key):
    with pytest.raises(Closed):
        await closed_at("/ws/nothing/", key)


async def test_what_a_client_sends_is_ignored_unless_it_is_long(job, key):
    async with Socket(socket_of(job), key) as socket:
        await socket.next(2)
        await socket.say("hello?")
        await has_nothing(socket)
        await socket.say("x" * (consumers.MESSAGE_CHARS_MAX + 1))
        with pytest.raises(Closed) as closed:
            await socket.next()
    assert closed.value.code == 4413


@override_settings(LLMJOBS_VIEWERS_PER_CLIENT_MAX=1)
async def test_one_client_can_not_take_all_places(job, key):
    async with Socket(socket_of(job), key) as first:
        await first.next(2)
        assert await closed_at(socket_of(job), key) == 4429


async def test_a_slow_viewer_is_dropped_and_may_resume(hub, job, key):
    async with speaking(job) as [speaker], Socket(socket_of(job), key) as socket:
        await socket.next(2)
        [viewer] = [viewer for watch in hub.watches.jobs.values() for viewer in watch.viewers]
        viewer.buffer.drop("too slow")
        with pytest.raises(Closed) as closed:
            await socket.next()
        assert closed.value.code == 4408
        [seq] = await speaker.say("later")
        async with Socket(socket_of(job, f"?after={2 * SEQ_EPOCH}"), key) as again:
            assert [frame["seq"] for frame in await again.next()] == [seq]


async def test_a_connection_that_is_old_ends_so_that_its_key_is_looked_at_again(job, key, monkeypatch):
    monkeypatch.setattr(following, "VIEW_FOR_S", 0.0)
    async with speaking(job) as [speaker], Socket(socket_of(job), key) as socket:
        await socket.next(2)
        await speaker.say("one more")
        seen, closed = await socket.rest()
    assert [frame["type"] for frame in seen] == ["delta"]
    assert closed.code == 4408


async def test_however_a_connection_ends_its_viewer_leaves_the_hub(hub, job, key):
    async with Socket(socket_of(job), key) as socket:
        await socket.next(2)
    cancelled = Socket(socket_of(job), key)
    await cancelled.__aenter__()
    await cancelled.next(2)
    cancelled.application.future.cancel()  # as a server that shuts down does
    await asyncio.gather(cancelled.application.future, return_exceptions=True)

    async def is_clean() -> None:
        assert not hub.watches.jobs and not +hub.watches._viewer_count

    await aeventually(is_clean)


async def test_a_fault_of_the_server_ends_the_connection(job, key, monkeypatch):
    """A browser that is left with an open line would wait for ever."""
    monkeypatch.setattr(consumers, "follow_job", lambda *args, **kwargs: 1 / 0)
    assert await closed_at(socket_of(job), key) == 1011
