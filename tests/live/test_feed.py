"""`/ws/jobs/` and `GET /api/events`: all of a caller's jobs on one connection."""

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.test import override_settings

from llmjobs import queue
from llmjobs.events import EVENTS_CHANNEL, wake
from llmjobs.live import hub as hub_module
from llmjobs.live import watches
from llmjobs.live.threads import in_thread
from llmjobs.models import Job, JobEvent
from llmjobs.states import SEQ_EPOCH, State
from tests.factories import make_client, make_job, make_key, make_model
from tests.helpers import aeventually
from tests.live.callers import ORIGIN, Socket, Stream, has_nothing, session_of
from tests.live.speaker import log_of, running_jobs, speaking
from tests.live.watching import Watched

pytestmark = pytest.mark.django_db(transaction=True)

FEED = "/ws/jobs/"
STREAM = "/api/events"


def seqs(frames, job: Job) -> list[tuple[int, str]]:
    return [(frame["seq"], frame["type"]) for frame in frames if frame["job"] == str(job.public_id)]


async def until_fed(hub, client) -> None:
    """The client's feed has begun: what is logged from here on is shown."""

    async def has_begun() -> None:
        assert hub.ear._tried.is_set() and client.pk in hub._sweeper._begun_at

    await aeventually(has_begun)


async def test_a_feed_shows_all_jobs_of_its_client_from_now_on_and_no_others(hub, acme, key):
    old, new = await in_thread(running_jobs, acme, 2)
    [foreign] = await in_thread(lambda: running_jobs(make_client(), 1))
    async with speaking(old, new, foreign) as [one, two, three]:
        await one.say("before")
        async with Socket(FEED, key) as feed:
            await until_fed(hub, acme)
            [first] = await one.say("a")
            [second] = await two.say("b")
            await three.say("secret")
            await two.end(text="b")
            frames = await feed.next(3)
            await has_nothing(feed)
    assert seqs(frames, old) == [(first, "delta")]
    assert seqs(frames, new) == [(second, "delta"), (3 * SEQ_EPOCH, "done")]
    assert frames[0].keys() == {"job", "seq", "type", "data"}
    [done] = [frame for frame in frames if frame["type"] == "done"]
    assert done["data"]["id"] == str(new.public_id) and done["data"]["output_text"] == "b"


async def test_a_new_job_appears_by_its_first_status(hub, acme, key):
    async with Socket(FEED, key) as feed:
        await until_fed(hub, acme)
        job = await in_thread(submit, acme)
        [frame] = await feed.next()
    assert (frame["job"], frame["type"], frame["data"]["status"]) == (str(job.public_id), "status", "queued")


def submit(client) -> Job:
    make_model("gpt")
    return queue.submit(client=client, model="gpt", messages=[{"role": "user", "content": "Say hello."}])


async def test_each_event_comes_once_however_many_watch_the_job_too(hub, acme, key, job):
    """The hub reads a job once for its own viewers and for feeds; who begins first must not take from the other."""
    async with speaking(job) as [speaker], Watched(hub, job) as watched:
        await speaker.talk(10)
        async with Socket(FEED, key) as feed:
            await until_fed(hub, acme)
            begin = speaker.seq
            await speaker.talk(50)
            await speaker.end()
            frames = await feed.next(51)
            await has_nothing(feed)
        await watched.have_seen(3 * SEQ_EPOCH)
    log = await in_thread(log_of, job)
    assert seqs(frames, job) == [entry for entry in log if entry[0] > begin]
    assert [(event.seq, event.type) for event in watched.seen[0]] == log


async def test_a_stream_resumes_where_it_was_with_repeats_that_can_be_told(hub, acme, key):
    """At least once across a reconnect; (job, seq) tells what came twice."""
    jobs = await in_thread(running_jobs, acme, 3)
    async with speaking(*jobs) as speakers:
        async with Stream(STREAM, key) as stream:
            assert stream.status == 200
            await until_fed(hub, acme)
            for speaker in speakers:
                await speaker.talk(10)
            seen = await stream.next(17)
        for speaker in speakers:
            await speaker.talk(10)
            await speaker.end()
        async with Stream(STREAM, key, last_event_id=str(seen[-1]["id"])) as again:
            logs = [await in_thread(log_of, job) for job in jobs]
            everything = {(str(job.public_id), seq) for job, log in zip(jobs, logs, strict=True) for seq, _ in log}
            shown = {(event["data"]["job"], event["data"]["seq"]) for event in seen}
            while not shown >= {entry for entry in everything if entry[1] > 2 * SEQ_EPOCH}:
                [event] = await again.next()
                shown.add((event["data"]["job"], event["data"]["seq"]))
                assert event["event"] == event["data"]["type"]
    assert shown <= everything


async def test_a_replay_meets_the_present_without_gap_or_repeat(hub, acme, key):
    jobs = await in_thread(running_jobs, acme, 2)
    async with speaking(*jobs) as speakers:
        for speaker in speakers:
            await speaker.talk(30)
        writing = asyncio.create_task(speakers[0].talk(200))
        async with Socket(f"{FEED}?since=0", key) as feed:
            frames = await feed.next(2 * 32 + 200)
            await writing
            await has_nothing(feed)
    for job in jobs:
        assert seqs(frames, job) == await in_thread(log_of, job)


async def test_since_takes_a_moment_in_either_notation(acme, key):
    job = await in_thread(lambda: make_job(State.COMPLETED, client=acme))
    a_minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    in_a_minute = datetime.now(UTC) + timedelta(minutes=1)
    log = await in_thread(log_of, job)
    for since in (
        a_minute_ago.isoformat(),
        f"{a_minute_ago:%Y-%m-%dT%H:%M:%S}",
        str(int(a_minute_ago.timestamp() * 1000)),
    ):
        async with Socket(f"{FEED}?since={quote(since)}", key) as feed:
            assert seqs(await feed.next(len(log)), job) == log
    async with Socket(f"{FEED}?since={quote(in_a_minute.isoformat())}", key) as feed:
        await has_nothing(feed)


@pytest.mark.parametrize("query", ["since=yesterday", "since=2026-13-45", "after=x", f"since={10**19}"])
async def test_a_malformed_moment_is_refused(key, query):
    async with Stream(f"{STREAM}?{query}", key) as stream:
        assert stream.status == 400
        assert (await stream.error())["param"] == query.split("=")[0]


async def test_what_happened_long_ago_is_not_replayed(acme, key):
    old = await in_thread(lambda: make_job(State.RUNNING, client=acme))
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await in_thread(lambda: JobEvent.objects.filter(job=old).update(created_at=an_hour_ago))
    async with speaking(old) as [speaker]:
        [seq] = await speaker.say("now")
    since = datetime.now(UTC) - timedelta(minutes=5)
    async with Socket(f"{FEED}?since={quote(since.isoformat())}", key) as feed:
        assert seqs(await feed.next(), old) == [(seq, "delta")]
        await has_nothing(feed)


async def test_where_listen_is_impossible_feeds_are_swept_up(hub, acme, key, monkeypatch):
    monkeypatch.setattr(hub_module, "POLL_S", 0.02)
    jobs = await in_thread(running_jobs, acme, 2)
    with override_settings(LLMJOBS_LISTEN_DSN="host=127.0.0.1 port=9 dbname=nobody-listens-here"):
        async with speaking(*jobs) as speakers:
            for speaker in speakers:
                await speaker.talk(5)
            begins = [speaker.seq for speaker in speakers]
            async with Socket(FEED, key) as feed:
                await until_fed(hub, acme)
                for speaker in speakers:
                    await speaker.talk(20)
                    await speaker.end()
                frames = await feed.next(42)
                await has_nothing(feed)
    for job, begin in zip(jobs, begins, strict=True):
        assert seqs(frames, job) == [entry for entry in await in_thread(log_of, job) if entry[0] > begin]


async def test_the_feeds_of_a_client_are_not_told_of_what_was_before_them(hub, acme, key):
    """Though another client's feed was there already, and its sweeps look back."""
    other = await in_thread(make_client)
    [job] = await in_thread(running_jobs, acme, 1)
    async with Socket(FEED, await in_thread(make_key, other)), speaking(job) as [speaker]:
        await until_fed(hub, other)
        await speaker.talk(5)
        async with Socket(FEED, key) as feed:
            await until_fed(hub, acme)
            await wake(speaker.connection, (EVENTS_CHANNEL, ["*"]))
            [seq] = await speaker.say("now")
            assert seqs(await feed.next(), job) == [(seq, "delta")]
            await has_nothing(feed)


async def test_nobody_feeds_on_a_client_that_is_not_theirs(acme):
    stranger = await in_thread(lambda: session_of(make_client()))
    [job] = await in_thread(running_jobs, acme, 1)
    async with Socket(f"{FEED}?since=0", origin=ORIGIN, cookie=stranger) as feed, speaking(job) as [speaker]:
        await speaker.say("secret")
        await has_nothing(feed)
    async with Socket(FEED, "llmj_wrong") as feed:
        _, closed = await feed.rest()
    assert closed.code == 4404


async def test_a_user_of_two_clients_sees_the_jobs_of_both(hub, acme):
    def both():
        other = make_client()
        return session_of(acme, other), [*running_jobs(acme, 1), *running_jobs(other, 1)]

    cookie, jobs = await in_thread(both)
    async with speaking(*jobs) as speakers, Socket(FEED, origin=ORIGIN, cookie=cookie) as feed:
        await until_fed(hub, acme)
        for speaker in speakers:
            await speaker.say("hello")
        assert {frame["job"] for frame in await feed.next(2)} == {str(job.public_id) for job in jobs}


async def test_the_positions_kept_for_feeds_are_bounded(hub, acme, key, monkeypatch):
    monkeypatch.setattr(watches, "FED_JOBS_MAX", 5)
    jobs = await in_thread(running_jobs, acme, 12)
    async with speaking(*jobs) as speakers, Socket(FEED, key) as feed:
        await until_fed(hub, acme)
        for speaker in speakers:
            await speaker.say("hello")
        frames = await feed.next(12)
        assert len(hub.watches.jobs) <= 5
        for speaker in speakers:
            await speaker.say("again")
        frames += await feed.next(12)
    for job in jobs:
        assert [seq for seq, _ in seqs(frames, job)] == [2 * SEQ_EPOCH + 1, 2 * SEQ_EPOCH + 2]
