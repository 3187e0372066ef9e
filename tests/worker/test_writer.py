"""What a worker writes: in ticks, of all its jobs together, again after an outage, without what Postgres refuses."""

import asyncio
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import AsyncConnection

from llmjobs import events, queue
from llmjobs.database import dsn
from llmjobs.execution import Attempt
from llmjobs.models import Attempt as LedgerRow
from llmjobs.models import Job, JobEvent
from llmjobs.states import State
from llmjobs.writer import Writer
from tests.hands import hands, settlement, submit

pytestmark = pytest.mark.django_db(transaction=True)


class Desk:
    """A Writer with a connection of its own; `refuse` makes its next uses of the database fail so."""

    def __init__(self, worker):
        self.refusals = []
        self.ended = {}
        self.writer = Writer(worker=worker, connect=self._connect, ended=self._ended)

    @asynccontextmanager
    async def _connect(self):
        if self.refusals:
            raise self.refusals.pop(0)
        async with await AsyncConnection.connect(**dsn()) as conn:
            yield conn

    def _ended(self, attempt, state):
        self.ended[attempt.job.id] = state

    def attempt(self, claimed):
        return Attempt(claimed, has_news=self.writer.has_news)

    def write(self, *settled, also=lambda: None):
        """Give it these (attempt, settlement), let it write all that it has, and end."""

        async def run():
            for attempt, ended in settled:
                self.writer.has_news(attempt)
                self.writer.settle(attempt, ended)
            also()
            self.writer.close()
            await asyncio.wait_for(self.writer.run(), 20)

        asyncio.run(run())


@pytest.fixture
def hand(transactional_db):
    with hands(1) as [one]:
        yield one


@pytest.fixture
def desk(hand):
    return Desk(hand.worker)


@pytest.fixture(autouse=True)
def at_once(settings):
    settings.LLMJOBS_EVENT_TICK_MS = 5
    settings.LLMJOBS_SETTLE_TICK_MS = 1


def claimed(hand, client, pool, count):
    submit(client, pool, count)
    return hand.claim(pool, count)


def test_an_attempt_s_last_words_and_its_end_are_one_transaction(hand, desk, client, pool):
    [job] = claimed(hand, client, pool, 1)
    attempt = desk.attempt(job)
    attempt._on_text("bye")
    desk.write((attempt, settlement(job)))
    assert list(JobEvent.objects.order_by("seq").values_list("type", flat=True)) == [
        "status",
        "status",
        "delta",
        "done",
    ]
    assert desk.ended == {job.id: "completed"}
    assert len({event.created_at for event in JobEvent.objects.exclude(data__status="queued")}) <= 2


def test_who_lost_its_lease_is_told_so(hand, desk, client, pool):
    one, two = claimed(hand, client, pool, 2)
    hand.release(one)
    hand.claim(pool)
    Job.objects.filter(id=two.id).update(attempt=7)
    LedgerRow.objects.filter(job_id=one.id, number=1).update(worker_id="00000000-0000-0000-0000-000000000000")
    desk.write((desk.attempt(one), settlement(one)), (desk.attempt(two), settlement(two)))
    assert desk.ended == {one.id: None, two.id: None}
    assert set(Job.objects.values_list("state", flat=True)) == {State.RUNNING}


@pytest.mark.parametrize("error", [psycopg.OperationalError("gone"), psycopg.InterfaceError("gone")])
def test_while_postgres_is_away_it_waits_and_then_writes_once(hand, desk, client, pool, error):
    [job] = claimed(hand, client, pool, 1)
    attempt = desk.attempt(job)
    attempt._on_text("word")
    desk.refusals = [error] * 3
    desk.write((attempt, settlement(job)))
    assert desk.ended == {job.id: "completed"}
    assert JobEvent.objects.filter(type="delta").count() == 1


def test_an_answer_that_postgres_refuses_ends_that_job_alone(hand, desk, client, pool):
    """jsonb takes no NUL. Whatever let it through, the worker lives, and the other jobs' answers are kept."""
    good, bad, fine = claimed(hand, client, pool, 3)
    attempts = [desk.attempt(job) for job in (good, bad, fine)]
    attempts[0]._on_text("kept")
    desk.write(
        (attempts[0], settlement(good, output="{}")),
        (attempts[1], settlement(bad, usage={"note": "\0"}, output="{}", output_text="lost")),
        (attempts[2], settlement(fine, output="{}")),
    )
    assert desk.ended == {good.id: "completed", bad.id: "dead", fine.id: "completed"}
    dead = Job.objects.select_related("result").get(id=bad.id)
    assert (dead.state, dead.failures, dead.result.error_code) == (State.DEAD, 1, "unstorable")
    assert (dead.result.output, dead.result.output_text, dead.result.usage) == (None, "", None)
    row = LedgerRow.objects.get(job_id=bad.id)
    assert row.outcome == "unrecognised" and "refused the answer" in row.decision
    assert JobEvent.objects.filter(job_id=good.id, type="delta").count() == 1


def test_an_event_that_postgres_refuses_is_left_out(hand, desk, client, pool):
    good, bad = claimed(hand, client, pool, 2)
    attempts = [desk.attempt(job) for job in (good, bad)]
    attempts[0]._on_text("kept")
    attempts[1].take_events()
    attempts[1].take_events = lambda: [events.Event(bad.id, 1, (2 << 20) + 1, "delta", {"text": "a\0"})]
    desk.write((attempts[0], settlement(good)), (attempts[1], settlement(bad)))
    assert desk.ended == {good.id: "completed", bad.id: "completed"}
    assert list(JobEvent.objects.filter(type="delta").values_list("job_id", flat=True)) == [good.id]


def test_what_breaks_a_constraint_does_not_end_the_worker_either(hand, desk, client, pool):
    good, bad = claimed(hand, client, pool, 2)
    desk.write((desk.attempt(good), settlement(good)), (desk.attempt(bad), settlement(bad, outcome=None)))
    assert desk.ended == {good.id: "completed", bad.id: "dead"}


def test_postgres_may_go_away_while_a_refusal_is_looked_for(hand, desk, client, pool):
    [bad] = claimed(hand, client, pool, 1)
    desk.refusals = [psycopg.DataError("refused")] + [psycopg.OperationalError("gone")] * 2
    desk.write((desk.attempt(bad), settlement(bad)))
    assert desk.ended == {bad.id: "completed"}


def test_a_settlement_is_written_in_bounded_batches(hand, desk, client, pool, settings, monkeypatch):
    settings.LLMJOBS_SETTLE_BATCH_MAX = 4
    jobs = claimed(hand, client, pool, 10)
    sizes, settle = [], queue.settle

    async def counted(conn, settlements, **options):
        sizes.append(len(settlements))
        return await settle(conn, settlements, **options)

    monkeypatch.setattr(queue, "settle", counted)
    desk.write(*[(desk.attempt(job), settlement(job)) for job in jobs])
    assert sizes == [4, 4, 2]
    assert set(desk.ended.values()) == {"completed"} and len(desk.ended) == 10


def test_a_whole_batch_of_settlements_waits_for_no_tick(hand, desk, client, pool, settings):
    settings.LLMJOBS_SETTLE_BATCH_MAX = 4
    settings.LLMJOBS_SETTLE_TICK_MS = 5_000
    jobs = claimed(hand, client, pool, 40)
    desk.write(*[(desk.attempt(job), settlement(job)) for job in jobs])  # which fails past 20 s; nine ticks take 45
    assert len(desk.ended) == 40


def test_a_tick_sends_one_wake_up_for_all_its_jobs(hand, desk, client, pool):
    jobs = claimed(hand, client, pool, 30)
    hand.run(hand.connection.execute("listen llmjobs_events"))
    desk.write(*[(desk.attempt(job), settlement(job)) for job in jobs])
    payloads = hand.run(_heard(hand.connection))
    assert len(payloads) == 1
    entries = payloads[0].split()
    assert {entry.split(":")[0] for entry in entries} == {str(job.id) for job in jobs}
    assert f"{jobs[0].id}:{client.id}:{2 << 20}" in entries


async def _heard(connection):
    """What was told until now: notices come in the order of their commits."""
    await connection.execute("notify llmjobs_events, 'until now'")
    told = []
    async for notice in connection.notifies(timeout=20):
        if notice.payload == "until now":
            break
        told.append(notice.payload)
    return told


def test_a_wake_up_that_can_not_be_sent_costs_nothing_else(hand, desk, client, pool, monkeypatch):
    async def fails(*arguments):
        raise psycopg.OperationalError("gone")

    monkeypatch.setattr("llmjobs.writer.wake", fails)
    [job] = claimed(hand, client, pool, 1)
    desk.write((desk.attempt(job), settlement(job)))
    assert desk.ended == {job.id: "completed"}


def test_the_verbs_of_others_are_told_with_the_next_tick(hand, desk, client, pool):
    [job] = submit(client, pool)
    hand.run(hand.connection.execute("listen llmjobs_events"))
    desk.write(also=lambda: desk.writer.wake([events.Wake(job.id, client.id, 5)]))
    assert hand.run(_heard(hand.connection)) == [f"{job.id}:{client.id}:5"]


def test_a_job_that_somebody_holds_locked_keeps_no_other_waiting_and_is_settled_once_it_is_free(
    hand, desk, client, pool
):
    """A host's transaction that cancelled it may stay open for minutes."""
    one, two = claimed(hand, client, pool, 2)
    with psycopg.connect(**dsn() | {"autocommit": False}) as host:
        host.execute("update llmjobs_job set cancel_requested_at = now() where id = %s", [one.id])
        seen = desk._ended

        def ended(attempt, state):
            seen(attempt, state)
            host.commit()

        desk.writer._ended = ended
        desk.write((desk.attempt(one), settlement(one, State.SCHEDULED)), (desk.attempt(two), settlement(two)))
    assert list(desk.ended.items()) == [(two.id, "completed"), (one.id, "cancelled")]
