"""A host that follows a job: each event once and in order, through a lost connection, and nothing left behind."""

import asyncio
import math
from contextlib import aclosing, closing

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, connection, connections, transaction

from llmjobs import job_streams, queue
from llmjobs.errors import DatabaseUnavailable, JobNotFound, NotAllowed, WaitTimedOut
from llmjobs.models import Job, JobEvent
from llmjobs.states import State
from tests.chaos.database_proxy import database_proxy
from tests.factories import make_job
from tests.hands import submit
from tests.helpers import aeventually, eventually

pytestmark = pytest.mark.django_db(transaction=True)

FOLLOWERS = """
from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()
    and (query = 'unlisten *' or query like 'listen%%' or query like '%%is_newest%%' or query like '%%last_seq%%')
"""


@pytest.fixture
def listening(monkeypatch):
    """Nobody polls: what is seen was told by a wake-up. Has an entry for each follower that waits for one."""
    monkeypatch.setattr(job_streams, "POLL_S", 300.0)
    real, found = job_streams._Line.wait, []

    async def wait(line, within_s):
        if line._is_listening:
            found.append(line)
        await real(line, within_s)

    monkeypatch.setattr(job_streams._Line, "wait", wait)
    return found


def followers(what="count(*)"):
    """The sessions that follow a job now."""
    with connection.cursor() as cursor:
        cursor.execute(f"select {what} {FOLLOWERS}")
        return [row[0] for row in cursor.fetchall()]


def cut():
    assert followers("pg_terminate_backend(pid, 5000)") == [True]


def test_a_stream_shows_what_was_and_what_comes_in_order_through_a_lost_connection(client, pool, hand):
    [job] = submit(client, pool)
    seen = []
    for event in job.stream():
        seen.append((event.type, event.data.get("text") or event.data.get("status")))
        if seen[-1] == ("status", "queued"):
            [claimed] = hand.claim(pool)
            for n, word in enumerate(("one ", "two ", "three")):
                hand.say(claimed, word, n=n + 1)
            cut()
        elif seen[-1] == ("delta", "three"):
            cut()
            hand.settle(claimed, output_text="one two three", output='{"id": "x"}')
    assert seen == [
        ("status", "queued"), ("delta", "one "), ("delta", "two "), ("delta", "three"), ("done", "completed")
    ]  # fmt: skip
    assert (event.data["id"], event.data["output_text"]) == (str(job.public_id), "one two three")
    assert event.data["links"]["self"] == f"/api/jobs/{job.public_id}", "as the WebSocket sends it"
    assert eventually(lambda: _none(followers())) is None
    first, *_ = list(job.stream())
    assert [rest.seq for rest in job.stream(after=first.seq)][-1] == event.seq
    assert list(job.stream(after=event.seq)) == [], "its end was seen"


def test_who_breaks_out_of_a_stream_leaves_no_connection(client, pool):
    [job] = submit(client, pool)
    with closing(job.stream()) as events:
        assert next(events).data == {"status": "queued", "attempt": 0}
        assert followers() == [1]
    eventually(lambda: _none(followers()))


def test_a_job_that_was_requeued_goes_on_after_the_end_before(client, pool, monkeypatch):
    [job] = submit(client, pool)
    queue.cancel([job.id])
    queue.requeue([job.id])
    events = job.stream()
    kinds = [next(events) for _ in range(3)]
    assert [(event.type, event.data.get("superseded")) for event in kinds] == [
        ("status", None), ("done", True), ("status", None)
    ]  # fmt: skip
    queue.cancel([job.id])
    assert [(event.type, event.data.get("superseded")) for event in events] == [("done", None)]
    monkeypatch.setattr(job_streams, "PAGE_ROWS", 2)  # the first end is the last of its page
    assert [event.type for event in job.stream()] == ["status", "done", "status", "done"]


def test_a_job_of_an_open_transaction_can_not_be_followed(client, pool):
    with transaction.atomic():
        [job] = submit(client, pool)
        for follow in (lambda: next(job.stream()), lambda: job.wait(5)):
            with pytest.raises(NotAllowed, match="committed"):
                follow()
    assert next(job.stream()).type == "status"
    job.pk = 0
    for follow in (lambda: next(job.stream()), lambda: job.wait(5)):
        with pytest.raises(JobNotFound):
            follow()


def test_a_stream_larger_than_a_page_is_whole(client, pool, monkeypatch):
    monkeypatch.setattr(job_streams, "PAGE_ROWS", 3)
    job = make_job(State.COMPLETED, client=client, model=pool)
    position = JobEvent.objects.filter(job=job, type="done").get().seq
    JobEvent.objects.bulk_create(
        [JobEvent(job=job, seq=position - 20 + n, type="delta", data={"text": str(n)}) for n in range(10)]
    )
    seqs = [event.seq for event in job.stream()]
    assert seqs == list(JobEvent.objects.filter(job=job).order_by("seq").values_list("seq", flat=True))


def test_a_wait_returns_the_job_as_it_ended(client, pool, hand):
    [job] = submit(client, pool)
    with pytest.raises(WaitTimedOut, match="it is queued") as caught:
        job.wait(timeout_s=0)
    with pytest.raises(WaitTimedOut):
        job.wait(timeout_s=math.nan)
    assert isinstance(caught.value, TimeoutError) and caught.value.state == "queued"
    assert (job.output, job.output_text) == (None, "")
    hand.settle(*hand.claim(pool), output_text="Hello.", output='{"choices": []}')
    assert job.wait() is job
    assert (job.state, job.output_text, job.output) == ("completed", "Hello.", {"choices": []})
    assert eventually(lambda: _none(followers())) is None


def test_what_cut_djangos_own_connection_too_does_not_show(client, pool, hand):
    [job] = submit(client, pool)
    hand.settle(*hand.claim(pool), output_text="Hello.")
    for follow in (lambda: job.wait().output_text, lambda: list(job.stream())[-1].data["output_text"]):
        hand.run(hand.connection.execute("select pg_terminate_backend(%s, 5000)", [_session()]))
        assert follow() == "Hello."
    with pytest.raises(OperationalError), transaction.atomic():  # what a transaction wrote is lost: that must show
        hand.run(hand.connection.execute("select pg_terminate_backend(%s, 5000)", [_session()]))
        pytest.fail(f"expected an error, got {job.wait()}")


async def test_a_server_that_falls_silent_is_given_up_wherever_it_was_asked(transactional_db, settings, monkeypatch):
    """Frozen when it is told to listen, which nobody waits for longer than for an answer."""
    monkeypatch.setattr(job_streams, "ANSWER_S", 0.2)
    monkeypatch.setattr(job_streams, "GIVE_UP_S", 0.2)
    job = await sync_to_async(make_job)()
    with database_proxy() as proxy:
        settings.LLMJOBS_LISTEN_DSN = proxy.url
        real = job_streams._Line.wait

        async def wait(line, within_s):
            proxy.freeze()
            await real(line, within_s)

        monkeypatch.setattr(job_streams._Line, "wait", wait)
        async with asyncio.timeout(120):
            with pytest.raises(DatabaseUnavailable):
                await job.await_()
    await sync_to_async(connections.close_all)()


def test_a_database_that_stays_away_is_told_in_time(client, pool, monkeypatch):
    [job] = submit(client, pool)
    monkeypatch.setattr("llmjobs.job_streams.connect_async", _away)
    monkeypatch.setattr(job_streams, "GIVE_UP_S", 0.2)
    for follow in (lambda: next(job.stream()), lambda: job.wait()):
        with pytest.raises(DatabaseUnavailable, match="nobody there"):
            follow()


async def test_coroutines_are_woken_and_who_is_busy_does_not_listen(transactional_db, listening):
    job = await sync_to_async(make_job)()
    with pytest.raises(SynchronousOnlyOperation, match="astream"):
        next(job.stream())
    with pytest.raises(SynchronousOnlyOperation, match="await_"):
        job.wait()
    waiting = asyncio.create_task((await Job.objects.aget(pk=job.pk)).await_(timeout_s=60))
    async with aclosing(job.astream()) as events:
        assert (await anext(events)).type == "status"
        coming = asyncio.create_task(anext(events))
        await aeventually(lambda: _are(listening, 2))
        await queue.acancel([job.pk])
        assert (await coming).data["status"] == "cancelled"
        ended = await waiting
        assert await sync_to_async(followers)("query") == ["unlisten *"]  # or what is told to all would be kept for it
    assert (ended.state, ended.client.name, ended.request.body) != (None, None, None), "nothing more is asked for"
    async for event in job.astream():
        assert event.seq
        break
    await sync_to_async(connections.close_all)()


def _session():
    """Of Django's connection here."""
    connection.ensure_connection()
    return connection.connection.info.backend_pid


async def _are(found, count):
    assert len(found) == count


async def _away():
    raise OSError("nobody there")


def _none(found):
    assert found == [0] or found == []
