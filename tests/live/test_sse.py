"""`GET /api/jobs/{id}/events`, through all of Django."""

import asyncio
import threading
import uuid

import pytest
from django.test import Client as Browser
from django.test import override_settings

from llmjobs import queue
from llmjobs.live import sse
from llmjobs.live.threads import in_thread
from llmjobs.models import Job
from llmjobs.states import SEQ_EPOCH, State
from tests.factories import make_client, make_job, make_key
from tests.helpers import aeventually
from tests.live.callers import Stream, session_of
from tests.live.speaker import log_of, speaking, texts

pytestmark = pytest.mark.django_db(transaction=True)


def events_of(job: Job, query: str = "") -> str:
    return f"/api/jobs/{job.public_id}/events{query}"


async def test_a_stream_shows_the_log_from_the_first_event_to_the_job(job, key):
    async with speaking(job) as [speaker], Stream(events_of(job), key) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-cache"
        assert stream.headers["x-accel-buffering"] == "no"
        seen = await stream.next(2)
        await speaker.say("Hel", "lo, ")
        await speaker.say("Wörld\n\n\u2028!")
        await speaker.end(text="the whole")
        seen += await stream.rest()
    assert [(event["id"], event["event"]) for event in seen] == await in_thread(log_of, job)
    assert texts(seen) == "Hello, Wörld\n\n\u2028!"


@pytest.mark.parametrize("path", ["/api/jobs/{}/events", "/api/events", "/api/jobs/none/events"])
async def test_a_stream_and_its_refusal_tell_what_is_left_of_the_client_s_limits(path, acme, job, key):
    await in_thread(lambda: type(acme).objects.update(rpm=30))
    async with Stream(path.format(job.public_id), key) as stream:
        assert stream.status == (404 if "none" in path else 200)
        told = {name: value for name, value in stream.headers.items() if name.startswith("x-ratelimit")}
    assert told == {
        "x-ratelimit-limit-requests": "30", "x-ratelimit-remaining-requests": "30", "x-ratelimit-reset-requests": "0s",
    }  # fmt: skip


async def test_done_is_the_job_as_get_shows_it(job, key):
    async with speaking(job) as [speaker]:
        await speaker.end(text="the whole")
    async with Stream(events_of(job), key) as stream:
        *_, done = await stream.rest()

    def get():
        return Browser().get(f"/api/jobs/{job.public_id}", headers={"Authorization": f"Bearer {key}"}).json()

    assert done["event"] == "done"
    assert done["data"] == await in_thread(get)
    assert done["data"]["output_text"] == "the whole"


@pytest.mark.parametrize("road", ["header", "query"])
async def test_a_returning_viewer_sees_what_it_has_not_seen(job, key, road):
    async with speaking(job) as [speaker]:
        numbers = await speaker.say("a", "b", "c")
        await speaker.end()
    if road == "header":
        stream = Stream(events_of(job, "?after=1"), key, last_event_id=str(numbers[1]))
    else:
        stream = Stream(events_of(job, f"?after={numbers[1]}"), key)
    async with stream:
        assert [event["id"] for event in await stream.rest()] == [numbers[2], 3 * SEQ_EPOCH]


async def test_who_comes_to_watch_an_erased_job_is_told_that_it_is_over(key, acme):
    job = await in_thread(lambda: make_job(State.COMPLETED, client=acme))
    await in_thread(lambda: queue.erase(job.pk))
    async with Stream(events_of(job), key) as stream:
        assert stream.status == 204


async def test_who_has_seen_the_end_is_told_not_to_come_again(key, acme):
    """EventSource reconnects whenever a stream ends; 204 is how it is told to stop."""
    job = await in_thread(lambda: make_job(State.COMPLETED, client=acme))
    async with Stream(events_of(job), key, last_event_id=str(3 * SEQ_EPOCH)) as stream:
        assert stream.status == 204
        assert await stream.body() == b""


@override_settings(LLMJOBS_SSE_KEEPALIVE_S=0.1)
async def test_a_quiet_stream_is_kept_open_by_comments(job, key):
    async with Stream(events_of(job), key) as stream:
        assert await stream.comment() == ": keep-alive"
        assert await stream.comment() == ": keep-alive"


@pytest.mark.parametrize("after", ["-1", "1.5", "x", "٣", str(2**63), "9" * 5000, "%00"])
async def test_a_malformed_position_is_refused_with_its_name(job, key, after):
    async with Stream(
        events_of(job, f"?after={after}") if after != "٣" else events_of(job, "?after=%D9%A3"), key
    ) as stream:
        assert stream.status == 400
        error = await stream.error()
    assert error["param"] == "after"
    assert "expected a whole number from 0 to 9223372036854775807" in error["message"]
    async with Stream(events_of(job), key, last_event_id="not-a-number") as stream:
        assert stream.status == 400
        assert (await stream.error())["param"] == "Last-Event-ID"


@pytest.mark.parametrize("path", ["{job}?after=x", "/api/events?since=-1", "/api/events?after=-1"])
async def test_a_malformed_position_is_refused_though_another_wins(job, key, path):
    async with Stream(path.format(job=events_of(job)), key, last_event_id="0") as stream:
        assert stream.status == 400


async def test_anothers_job_is_no_job(job, key):
    """Word for word: a stranger can't tell what exists."""
    stranger = await in_thread(lambda: make_key(make_client("stranger")))
    answers = []
    for path in (events_of(job), f"/api/jobs/{uuid.uuid4()}/events", "/api/jobs/nonsense/events"):
        async with Stream(path, stranger) as stream:
            answers.append((stream.status, await stream.body()))
    assert answers[0][0] == 404
    assert answers[0] == answers[1] == answers[2]


async def test_who_says_not_who_they_are_is_refused(job):
    for key in (None, "llmj_wrong"):
        async with Stream(events_of(job), key) as stream:
            assert stream.status == 401
            assert stream.headers["www-authenticate"] == "Bearer"
            assert (await stream.error())["code"] == "invalid_api_key"


async def test_a_key_without_the_scope_to_read_reads_nothing(job, acme):
    submitter = await in_thread(lambda: make_key(acme, scopes=["submit"]))
    async with Stream(events_of(job), submitter) as stream:
        assert stream.status == 403
        assert (await stream.error())["code"] == "insufficient_scope"


async def test_a_user_sees_the_jobs_of_their_clients_and_an_operator_all(job, acme):
    def sessions() -> list[str]:
        return [session_of(acme), session_of(make_client()), session_of(is_operator=True)]

    statuses = []
    for cookie in await in_thread(sessions):
        async with Stream(events_of(job), cookie=cookie) as stream:
            statuses.append(stream.status)
    assert statuses == [200, 404, 200]


async def test_only_get_is_answered(job, key):
    async with Stream(events_of(job), key, method="POST") as stream:
        assert stream.status == 405
        assert stream.headers["allow"] == "GET, HEAD"
        await stream.error()
    async with Stream(events_of(job), key, method="HEAD") as stream:
        assert stream.status == 200
        assert await stream.body() == b""


@override_settings(LLMJOBS_VIEWERS_PER_CLIENT_MAX=1)
async def test_one_client_can_not_take_all_places(hub, job, key):
    async with Stream(events_of(job), key) as first:
        assert first.status == 200
        async with Stream(events_of(job), key) as second:
            assert second.status == 429
            assert "retry-after" in second.headers
            await second.error()
    async with Stream(events_of(job), key) as third:
        assert third.status == 200


async def test_a_viewer_who_goes_away_leaves_nothing_behind(hub, job, key):
    """Neither a place in the hub nor a thread."""
    before = threading.active_count()
    for _ in range(3):
        async with Stream(events_of(job), key) as stream:
            await stream.next(2)
            assert hub.watches.jobs

    async def is_clean() -> None:
        assert not hub.watches.jobs and not +hub.watches._viewer_count
        assert threading.active_count() <= before + 2  # the two of threads.py

    await aeventually(is_clean)


async def test_a_stream_holds_no_thread(job, key):
    async with Stream(events_of(job), key) as stream:
        await stream.next(2)
        before = threading.active_count()
        more = [Stream(events_of(job), key) for _ in range(10)]
        for one in more:
            await one.__aenter__()
            await one.next(2)

        async def holds_none() -> None:
            assert threading.active_count() <= before

        await aeventually(holds_none)
        for one in more:
            await one.__aexit__(None, None, None)


async def test_while_the_database_is_away_a_viewer_is_told_to_come_again(job, key, monkeypatch):
    def away(*args):
        raise OSError("no route to the database")

    monkeypatch.setattr("llmjobs.live.admission.caller_of", away)
    async with Stream(events_of(job), key) as stream:
        assert stream.status == 503
        assert stream.headers["retry-after"] == "2"
        assert (await stream.error())["type"] == "server_error"


async def test_a_dropped_stream_just_ends(hub, job, key, monkeypatch):
    """EventSource comes again by itself, with the number of the last event."""
    async with speaking(job) as [speaker], Stream(events_of(job), key) as stream:
        await stream.next(2)
        [viewer] = [viewer for watch in hub.watches.jobs.values() for viewer in watch.viewers]
        viewer.buffer.drop("too slow")
        assert await stream.rest() == []
        [seq] = await speaker.say("later")
        async with Stream(events_of(job), key, last_event_id=str(2 * SEQ_EPOCH)) as again:
            assert [event["id"] for event in await again.next()] == [seq]


async def test_a_stream_begins_with_a_short_time_to_come_again(job, key):
    async with Stream(events_of(job), key) as stream:
        first = await stream.receive()
    assert first["body"].startswith(sse.RETRY)


async def test_many_streams_at_once_show_the_same(job, key):
    async with speaking(job) as [speaker]:
        streams = [Stream(events_of(job), key) for _ in range(20)]
        await asyncio.gather(*(stream.__aenter__() for stream in streams))
        await speaker.talk(20)
        await speaker.end()
        seen = await asyncio.gather(*(stream.rest() for stream in streams))
    assert all(one == seen[0] for one in seen) and len(seen[0]) == 23
