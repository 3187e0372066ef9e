"""Each pair of verbs on the same jobs, in opposite orders: the one waits for the other, and neither for ever.

The first holds its locks in a transaction that is open; the second waits or skips; once the first has committed, the
second decides by what it left.
"""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from llmjobs import queue
from llmjobs.errors import JobNotFound, NotAllowed
from llmjobs.leases import Claimed
from llmjobs.models import Attempt, Job, JobEvent, JobRequest, JobResult, Model, Worker
from llmjobs.states import TERMINAL, Priority, State
from llmjobs.submissions import parse
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_model
from tests.hands import Hand, hands, submit
from tests.postgres.counting import differences
from tests.properties.ground import check_counts, check_dead_letters, check_identity, used_by_attempts

pytestmark = pytest.mark.django_db(transaction=True)

VERBS = (
    "cancel", "settle", "release", "reclaim", "requeue", "stage", "expire", "claim", "say", "erase", "prune",
    "reprioritize", "move", "cancel_dead", "discard", "restore", "requeue_as",
)  # fmt: skip


class Scene:
    """Eight jobs: two that are over and old enough to go, two queued, two scheduled and due, two running; all expire
    now. `holder` holds the running ones. The one that was completed can't be requeued, the dead one can. `elsewhere`
    is a model to move to.
    """

    def __init__(self, holder: Hand, client: Any, pool: Model) -> None:
        self.holder, self.pool, self.elsewhere = holder, pool, make_model()
        submit(client, pool, 2)
        self.used = self._end(*holder.claim(pool, 2))
        submit(client, pool, 2)
        self.claimed: list[Claimed] = holder.claim(pool, 2)
        submit(client, pool, 2)
        submit(client, pool, 2, delay_s=3600)
        self.ids = list(Job.objects.order_by("id").values_list("id", flat=True))
        Job.objects.filter(state="scheduled").update(available_at=timezone.now())

    def _end(self, completed: Claimed, dead: Claimed) -> list[dict[str, Any]]:
        """Returns what they used."""
        self.holder.settle(completed)
        self.holder.settle(dead, state=State.DEAD)
        Job.objects.update(finished_at=timezone.now() - timedelta(days=31))
        return used_by_attempts()

    @property
    def gone(self) -> list[dict[str, Any]]:
        """What was used by jobs that were removed."""
        kept = set(Job.objects.values_list("id", flat=True))
        return [attempt for attempt in self.used if attempt["job_id"] not in kept]

    def carry_out(self, verb: str, hand: Hand, *, backwards: bool) -> Any:
        step = -1 if backwards else 1
        match verb:
            case "cancel":
                return queue.cancel(self.ids[::step])
            case "requeue":
                return queue.requeue(self.ids[::step])
            case "settle":
                return self.holder.settle(*self.claimed[::step])
            case "release":
                return self.holder.release(*self.claimed[::step])
            case "say":
                return self.holder.say(self.claimed[0], "word")
            case "claim":
                return hand.claim(self.pool, 4)
            case "reclaim":
                return hand.reclaim()
            case "stage":
                return hand.stage()
            case "expire":
                return hand.expire()
            case "erase":
                return [erased(job_id) for job_id in self.ids[::step]]
            case "prune":
                return hand.prune()
            case "reprioritize":
                return queue.reprioritize(self.ids[::step], Priority.LOW if backwards else Priority.BACKGROUND)
            case "move":
                return queue.move(self.ids[::step], self.elsewhere.pk)
            case "cancel_dead":
                return queue.cancel(self.ids[::step], even_dead=True)
            case "discard":
                return queue.discard(self.ids[::step])
            case "restore":
                return queue.restore(self.ids[::step])
            case "requeue_as":
                return [requeued(job_id, self.elsewhere) for job_id in self.ids[::step]]


def erased(job_id: int) -> bool:
    try:
        queue.erase(job_id)
    except (JobNotFound, NotAllowed):
        return False
    return True


def requeued(job_id: int, pool: Model) -> bool:
    asked = {"model": pool.name, "messages": [{"role": "user", "content": "Say it."}], "priority": "low"}
    try:
        queue.requeue_as(job_id, parse(asked))
    except (JobNotFound, NotAllowed):
        return False
    return True


@pytest.fixture(autouse=True)
def short_lease(settings):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations_with_replacement(VERBS, 2)))
def test_two_verbs_at_once_leave_a_legal_state_and_exact_counts(client, pool, one, two):
    with hands(3) as [holder, first, second]:
        scene = Scene(holder, client, pool)
        if "reclaim" in (one, two):
            Worker.objects.filter(id=holder.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
        if "expire" in (one, two):
            Job.objects.filter(state__in=["queued", "scheduled"]).update(expires_at=timezone.now())
        calls = [lambda: scene.carry_out(one, first, backwards=False)]
        if not {one, two} <= {"settle", "release", "say"}:  # one worker's, which writes one thing at a time
            calls.append(lambda: scene.carry_out(two, second, backwards=True))
        together(calls)
        first.fold()
        check_counts()
        check_identity(gone=scene.gone)
        assert differences() == []
    if "discard" not in (one, two):
        check_dead_letters()
    check_nothing_is_left_of_what_went()
    running = set(Job.objects.filter(state=State.RUNNING).values_list("id", "attempt"))
    open_attempts = set(Attempt.objects.filter(outcome=None).values_list("job_id", "number"))
    assert running == open_attempts, "an attempt is open if and only if its job runs"


def check_nothing_is_left_of_what_went() -> None:
    """And what is to run has its request."""
    jobs = dict(Job.objects.values_list("id", "state"))
    for table in (JobRequest, JobResult, JobEvent, Attempt):
        assert set(table.objects.values_list("job_id", flat=True)) <= set(jobs), table.__name__
    asked = set(JobRequest.objects.exclude(body="").values_list("job_id", flat=True))
    assert {job_id for job_id, state in jobs.items() if state not in TERMINAL} <= asked, "nobody could run it"


def test_a_cancel_that_must_wait_locks_in_the_order_of_ids(client, pool):
    """Given the ids in any order, and whatever the plan: two batches that overlap can't hold what the other needs."""
    with hands(2) as [holder, other]:
        submit(client, pool, 4)
        claimed = holder.claim(pool, 4)
        ids = [job.id for job in claimed]
        Job.objects.filter(id=ids[0]).update(timeout_s=7)  # it stands behind the others in the table now
        other.run(other.connection.execute("begin"))
        other.run(other.connection.execute("select from llmjobs_job where id = %s for update", [ids[1]]))
        waiting = started_and_waiting(_cancel_by_the_order_of_the_table, ids[::-1])
        free = "select id from llmjobs_job where id = any (%s) order by id for update skip locked"
        rows = other.run(other.run(other.connection.execute(free, [ids])).fetchall())
        other.run(other.connection.execute("rollback"))
        assert waiting()
    assert [row[0] for row in rows] == ids[1:], "it holds what is before the one that it waits for, and nothing behind"


def test_a_settle_waits_for_nobody(client, pool):
    """A host's transaction that cancelled a job may stay open for minutes; its worker runs others."""
    with hands(2) as [holder, other]:
        submit(client, pool, 3)
        claimed = holder.claim(pool, 3)
        other.run(other.connection.execute("begin"))
        other.run(
            other.connection.execute(
                "update llmjobs_job set cancel_requested_at = now() where id = %s", [claimed[1].id]
            )
        )
        states = holder.settle(*claimed, state=State.SCHEDULED)
        assert states == {claimed[0].id: "scheduled", claimed[1].id: queue.BUSY, claimed[2].id: "scheduled"}
        assert Attempt.objects.get(job_id=claimed[1].id).outcome is None
        other.run(other.connection.execute("commit"))
        assert holder.settle(claimed[1], state=State.SCHEDULED) == {claimed[1].id: "cancelled"}
        holder.fold()
        check_counts()


def _cancel_by_the_order_of_the_table(ids: list[int]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("set enable_indexscan = off; set enable_bitmapscan = off")
    return queue.cancel(ids)
