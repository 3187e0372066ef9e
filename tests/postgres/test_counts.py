"""Jobs are counted exactly, whoever changes them and however that ends; and counting is one worker's duty at a time."""

import importlib
import random
from contextlib import nullcontext
from datetime import timedelta

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F

from llmjobs import counts, queue
from llmjobs.database import dsn
from llmjobs.models import Attempt, Client, Job, JobCount, JobCountChange, JobCountTurn, Spending, Tier
from llmjobs.states import TERMINAL, State
from tests.factories import make_client, make_job, make_model
from tests.hands import Hand, submit
from tests.postgres.counting import differences, pass_time, spending_differences

pytestmark = pytest.mark.django_db(transaction=True)

ENDS = [State.COMPLETED, State.FAILED, State.DEAD, State.SCHEDULED, State.CANCELLED, State.QUEUED]


def count() -> int:
    return counts.help_count(least=0)


def count_by(hand: Hand) -> int:
    return hand.run(counts.count(hand.connection))


class Doings:
    """One random deed after the other, by every road that changes jobs."""

    def __init__(self, seed: int, hand: Hand, pool) -> None:
        self.random, self.hand, self.pool = random.Random(seed), hand, pool
        self.clients = [make_client(f"client-{n}", tier=tier) for n, tier in enumerate(("free", "pro", "enterprise"))]
        self.claimed: list = []
        self.deeds = [
            self.submits, self.submits, self.submits_and_takes_back, self.submits_and_takes_back_a_part, self.claims,
            self.claims, self.settles, self.settles, self.cancels, self.requeues, self.stages, self.changes_tier,
            self.changes_priority, self.changes_dollars, self.corrects_a_cost, self.removes, self.counts,
            self.counts_late,
        ]  # fmt: skip

    def __call__(self) -> None:
        self.random.choice(self.deeds)()

    def submits(self) -> None:
        client = self.random.choice(self.clients)
        asked = {"priority": self.random.choice(["normal", "low"]), "delay_s": self.random.choice([0, 0, 0, 60])}
        submit(client, self.pool, self.random.randint(1, 4), long=self.random.random() < 0.3, **asked)

    def submits_and_takes_back(self) -> None:
        with transaction.atomic():
            self.submits()
            transaction.set_rollback(True)

    def submits_and_takes_back_a_part(self) -> None:
        with transaction.atomic():
            self.submits()
            with transaction.atomic():
                self.submits()
                self.cancels()
                transaction.set_rollback(True)
            self.submits()

    def claims(self) -> None:
        self.claimed += self.hand.claim(self.pool, self.random.randint(1, 5))

    def settles(self) -> None:
        self.random.shuffle(self.claimed)
        while self.claimed and self.random.random() < 0.7:
            cost_usd = self.random.choice([None, "0.00000001", f"{self.random.random():.8f}"])
            self.hand.settle(self.claimed.pop(), state=self.random.choice(ENDS), cost_usd=cost_usd)

    def cancels(self) -> None:
        queue.cancel(self._some(Job.objects.exclude(state__in=TERMINAL)))

    def requeues(self) -> None:
        queue.requeue(self._some(Job.objects.all()))

    def stages(self) -> None:
        Job.objects.filter(state="scheduled", id__in=self._some(Job.objects.all())).update(available_at=F("created_at"))
        self.hand.stage()

    def changes_tier(self) -> None:
        Client.objects.filter(id=self.random.choice(self.clients).id).update(
            tier=self.random.choice(Tier.objects.order_by("id"))
        )

    def changes_priority(self) -> None:
        Job.objects.filter(state="completed", id__in=self._some(Job.objects.all())).update(priority=10)

    def changes_dollars(self) -> None:
        """As a move to a fallback does, whose prices are other ones or not known."""
        Job.objects.filter(id__in=self._some(Job.objects.all())).update(est_usd=self.random.choice([None, "0.5"]))

    def corrects_a_cost(self) -> None:
        some = Attempt.objects.filter(job_id__in=self._some(Job.objects.all()), ended_at__isnull=False)
        some.update(cost_usd=self.random.choice([None, 0, "0.25"]), ended_at=F("ended_at") - timedelta(days=20))

    def removes(self) -> None:
        """The ledger stays: what was spent is spent."""
        some = Job.objects.filter(state__in=TERMINAL, id__in=self._some(Job.objects.all()))
        some._raw_delete(using="default")

    def counts(self) -> None:
        pass_time(self.random.choice([0, 1, 3]))
        count()

    def counts_late(self) -> None:
        pass_time(11)
        count_by(self.hand)

    def _some(self, jobs) -> list[int]:
        return [job_id for job_id in jobs.order_by("id").values_list("id", flat=True) if self.random.random() < 0.3]


@pytest.mark.parametrize("seed", range(4))
def test_counts_and_money_are_what_a_group_by_says_after_every_deed(hand, seed):
    deed = Doings(seed, hand, make_model("priced", input_usd_per_mtok="0.4", output_usd_per_mtok="1.6"))
    for n in range(80):
        deed()
        assert differences() == spending_differences() == [], n
    while count():
        pass
    assert JobCountChange.objects.count() == 0 and differences() == spending_differences() == []
    assert Spending.objects.filter(usd__gt=0).exists(), "it cost nothing"
    states = set(JobCount.objects.filter(client=None).values_list("state", flat=True))
    assert {"submitted", "queued", "scheduled", "running", "cancelled"} < states, "it did little"


def test_a_job_made_by_any_road_counts(pool):
    make_job("running", model=pool)
    make_job("dead", model=pool)
    with connection.cursor() as cursor:
        cursor.execute("update llmjobs_job set state = 'queued', worker_id = null, finished_at = null")
    assert differences() == []
    with connection.cursor() as cursor:
        cursor.execute("delete from llmjobs_job")
    assert differences() == []


def test_jobs_that_were_removed_were_submitted_once(hand, client, pool):
    submit(client, pool, 3)
    hand.settle(*hand.claim(pool, 2))
    Job.objects.filter(state="completed").delete()
    count()
    assert list(JobCount.objects.filter(state="submitted", client=None).values_list("jobs", flat=True)) == [3]
    assert list(JobCount.objects.filter(state="submitted", client=client).values_list("jobs", flat=True)) == [3]


def test_who_comes_while_another_counts_skips_its_turn(hand, other, client, pool):
    submit(client, pool)
    with transaction.atomic():
        assert count() == 1
        assert count_by(hand) == 0
    assert differences() == []


def test_workers_together_count_once_a_second(hand, other, client, pool):
    submit(client, pool)
    assert count_by(hand) == 1
    submit(client, pool)
    assert count_by(other) == 0
    pass_time(1)
    assert count_by(other) == 1


def test_a_large_backlog_of_changes_is_counted_in_bounded_batches(hand, client, pool, monkeypatch):
    monkeypatch.setattr(counts, "COUNT_ROWS", 2)
    for _ in range(5):
        submit(client, pool)
    assert count() == 2
    pass_time(1)
    assert count_by(hand) == 3


def test_without_workers_who_submits_counts_now_and_then(client, pool, monkeypatch):
    monkeypatch.setattr(counts, "HELP_EVERY_JOBS", 10)
    monkeypatch.setattr(counts, "HELP_CHANGES", 5)
    for _ in range(40):
        submit(client, pool)
        assert JobCountChange.objects.count() <= 20
    assert JobCount.objects.exists() and differences() == []


@pytest.mark.parametrize("is_joining", [False, True])
def test_a_count_that_fails_after_a_submit_takes_nothing_with_it(client, pool, monkeypatch, is_joining):
    """Its connection may be cut between the commit and the count: the job is there, and the caller must hear of it."""

    def cut(**_):
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(counts, "HELP_EVERY_JOBS", 1)
    monkeypatch.setattr(counts, "help_count", cut)
    with transaction.atomic() if is_joining else nullcontext():
        [job] = submit(client, pool)
    assert Job.objects.get().id == job.id


def test_the_bound_lags_behind_by_two_to_four_seconds(client, pool):
    def counted():
        submit(client, pool)
        count()
        return JobCountTurn.objects.get()

    counted()
    pass_time(3)
    first = counted()
    assert first.next_bound_id == first.counted_to > 0 and first.bound_id == 0
    pass_time(1.9)
    assert counted().bound_id == 0, "a transaction that took a second is not behind it"
    pass_time(0.2)
    assert counted().bound_id == first.counted_to


def test_what_committed_late_is_counted_by_the_next_sweep(hand, client, pool):
    """A cancel, in a transaction that stays open while the bound passes it."""
    jobs = submit(client, pool, 2)
    with psycopg.connect(**dsn() | {"autocommit": False}) as late:
        late.execute("update llmjobs_job set state = 'cancelled', finished_at = now() where id = %s", [jobs[0].id])
        for _ in range(3):
            submit(client, pool)
            pass_time(2.1)  # all of it well under the ten seconds after which a sweep takes all
            count()
        late.commit()
    assert JobCountChange.objects.get(jobs=-1).id < JobCountTurn.objects.get().bound_id
    assert count() == 0
    pass_time(10)
    assert count_by(hand) == 2
    assert JobCountChange.objects.count() == 0 and differences() == []


def test_the_migration_counts_what_is_there(hand, client, pool):
    submit(client, pool, 3)
    submit(make_client("other"), pool, 2, delay_s=60)
    hand.settle(*hand.claim(pool, 2))
    migration = importlib.import_module("llmjobs.migrations.0004_counts")
    with connection.cursor() as cursor:
        cursor.execute(migration.BACKFILL_REVERSE)
        cursor.execute(migration.BACKFILL)
    assert differences() == []
    assert list(JobCount.objects.filter(state="submitted", client=client).values_list("jobs", flat=True)) == [3]


def test_after_a_flush_the_first_count_begins_anew(client, pool):
    submit(client, pool)
    count()
    JobCountTurn.objects.all().delete()  # as a flush leaves it: no row of any kind, ids go on
    JobCount.objects.all().delete()
    Job.objects.all().delete()
    JobCountChange.objects.all().delete()
    submit(client, pool, 2)
    assert count() == 1 and differences() == []
