"""Finished jobs go when they are old, with all that belongs to them, and nothing else does."""

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from llmjobs import queue, retention, sharing
from llmjobs.counts import help_count
from llmjobs.models import (
    Attempt,
    HandlerCall,
    Incident,
    Job,
    JobEvent,
    JobRequest,
    JobResult,
    PoolSample,
    Provider,
    Retention,
    SharedLink,
    Spending,
    WebhookDelivery,
    Worker,
)
from llmjobs.representation import job_json
from llmjobs.retention import Ages
from llmjobs.sql import load
from llmjobs.states import REQUEUEABLE, TERMINAL, State
from llmjobs.stats import queue_stats
from llmjobs.submissions import parse
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_job, make_worker
from tests.hands import submit
from tests.postgres.counting import differences

pytestmark = pytest.mark.django_db(transaction=True)

OF_A_JOB = (JobRequest, JobResult, JobEvent, Attempt, WebhookDelivery, HandlerCall, SharedLink)
CANARY = "the prompt, quoted"


@pytest.fixture
def old(client, pool):
    """Makes a job that finished so many days ago."""

    def make(days=31.0, state=State.COMPLETED, **fields):
        at = timezone.now() - timedelta(days=days)
        return make_job(state, client=client, model=pool, created_at=at, finished_at=at, **fields)

    return make


@pytest.fixture
def prune(hand):
    """A round of the duty, with ages in days. Returns (removed, kept) of jobs, or of bodies."""

    def run(jobs=None, bodies=None, *, from_start=False):
        ages = Ages(*(days if days is None else days * 86_400 for days in (jobs, bodies)))
        [walk] = retention.walks(ages, from_start=from_start)
        assert hand.run(retention.go(walk, connect_of(hand), lambda _: None, waits=False))
        return walk.removed, walk.kept

    return run


def connect_of(hand):
    @asynccontextmanager
    async def connect():
        yield hand.connection

    return connect


def told(job, state, *, of=WebhookDelivery):
    """The end of this job was told, or is to be."""
    field = {"has_webhook": True} if of is WebhookDelivery else {"has_handler": True}
    Job.objects.filter(pk=job.pk).update(**field)
    more = {"client": job.client, "type": "job.completed", "url": "https://a.example/"} if of is WebhookDelivery else {}
    ended_at = None if state == "pending" else timezone.now()
    return of.objects.create(job=job, epoch=job.epoch, state=state, ended_at=ended_at, error=CANARY, **more)


# Jobs.


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_finished_job_goes_with_all_that_belongs_to_it(old, prune, state):
    job = old(state=state)
    told(job, "delivered")
    told(job, "dead", of=HandlerCall)
    sharing.share(job, expires_in_s=None)
    assert prune(30) == (1, 0)
    assert not Job.objects.exists()
    for table in OF_A_JOB:
        assert not table.objects.exists(), table.__name__


def test_what_is_younger_and_what_is_not_over_stays(old, prune, client, pool):
    young = old(29)
    waiting = [make_job(state, client=client, model=pool) for state in sorted(set(State) - TERMINAL)]
    Job.objects.filter(finished_at=None).update(created_at=timezone.now() - timedelta(days=365))
    assert prune(30) == (0, 0)
    assert set(Job.objects.values_list("id", flat=True)) == {young.id, *(job.id for job in waiting)}
    assert JobRequest.objects.count() == 4


def test_counts_are_exact_after_it_and_what_was_spent_and_submitted_stays(old, prune, hand, client, pool):
    for state in sorted(TERMINAL):
        old(state=state)
    submit(client, pool, 2)
    hand.settle(*hand.claim(pool), cost_usd="0.5")
    Job.objects.filter(finished_at__gt=timezone.now() - timedelta(days=1)).update(
        finished_at=timezone.now() - timedelta(days=31)
    )
    help_count(least=0)
    before, spent = queue_stats(), list(Spending.objects.values_list("client", "month", "usd"))
    assert prune(30) == (6, 0)
    assert differences() == []
    help_count(least=0)
    assert differences() == []
    assert spent and list(Spending.objects.values_list("client", "month", "usd")) == spent
    after = queue_stats()
    assert (before["total"], after["total"]) == (7, 1)
    for name in ("enqueued_total", "dequeued_total", "queued"):
        assert after[name] == before[name], name


@pytest.mark.parametrize("of", [WebhookDelivery, HandlerCall])
def test_a_job_whose_end_is_to_be_told_stays_until_it_was(old, prune, of):
    first, second, third = old(33), old(32), old(31)
    row = told(second, "pending", of=of)
    assert prune(30) == (2, 1)
    assert Retention.objects.get().jobs_gone_to == second.finished_at, "who comes next begins with it"
    assert Job.objects.get() == second and of.objects.get() == row
    of.objects.update(state="done" if of is HandlerCall else "failed", ended_at=timezone.now())
    assert prune(30) == (1, 0)
    assert not Job.objects.filter(id__in=[first.id, second.id, third.id]).exists()


def test_many_that_stay_hold_up_nobody_behind_them(old, prune, settings):
    settings.LLMJOBS_PRUNE_ROWS = 2
    kept = [old(40 - n) for n in range(5)]
    for job in kept:
        told(job, "pending")
    old(31)
    assert prune(30) == (1, 5)
    assert Retention.objects.get().jobs_gone_to == kept[0].finished_at, "who comes next begins with the first of them"


def test_who_finds_something_behind_the_mark_that_stays_puts_the_mark_back(old, prune):
    """Or nobody would look at it once its end was told."""
    old(31)
    assert prune(30) == (1, 0)
    late = old(35)
    told(late, "pending")
    assert prune(30, from_start=True) == (0, 1)
    WebhookDelivery.objects.update(state="delivered", ended_at=timezone.now())
    assert prune(30) == (1, 0)


def test_a_job_whose_key_may_come_again_stays(old, prune, settings):
    settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 40 * 86_400
    old(31)
    kept = old(31, request={"idempotency_key": "k"})
    assert prune(30) == (1, 1)
    assert Job.objects.get() == kept
    settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 86_400
    assert prune(30) == (1, 0)


def test_a_batch_is_bounded_in_jobs_and_in_events(old, hand, settings, monkeypatch):
    settings.LLMJOBS_PRUNE_ROWS = 3
    at = timezone.now() - timedelta(days=31)
    for _ in range(7):
        old()
    Job.objects.update(finished_at=at)  # a bulk cancel ends all at one moment
    [walk] = retention.walks(Ages(30 * 86_400.0, None))
    removed = []
    while not walk.is_over:
        assert hand.run(walk.step(hand.connection))
        removed.append(walk.removed)
    assert removed == [3, 6, 7, 7]

    for _ in range(3):
        old()
    monkeypatch.setattr(retention, "EVENTS_MAX", 5)  # each has four
    Retention.objects.all().delete()
    [walk] = retention.walks(Ages(30 * 86_400.0, None))
    hand.run(walk.step(hand.connection))
    assert walk.removed == 2


def test_the_duty_goes_on_where_it_came_to_and_the_command_finds_what_came_behind_it(old, prune):
    last = old(31)
    assert prune(30) == (1, 0)
    assert Retention.objects.get().jobs_gone_to == last.finished_at
    old(32)  # of a transaction that was open for two days
    assert prune(30) == (0, 0)
    assert prune(30, from_start=True) == (1, 0)


def test_no_walk_passes_what_a_transaction_may_still_bring(old, prune):
    """It ended a job before the walk, and commits after it."""
    old(0.001)
    assert prune(0.0001) == (1, 0)
    assert Retention.objects.get().jobs_gone_to < timezone.now() - timedelta(minutes=59)
    old(0.002)
    assert prune(0.0001) == (1, 0)


@pytest.mark.parametrize("state", sorted(REQUEUEABLE))
def test_a_requeue_in_that_moment_is_not_lost(old, prune, hand, pool, state):
    """It holds the job, in a transaction that is open; when it has committed, the job waits for a claim."""
    job = old(state=state)
    with transaction.atomic():
        queue.requeue([job.id])
        assert prune(30) == (0, 0)
        assert Job.objects.filter(id=job.id).exists()
    assert prune(30, from_start=True) == (0, 0)
    assert [claimed.id for claimed in hand.claim(pool)] == [job.id]


def test_a_requeue_between_the_look_and_the_lock_is_not_lost(old, hand, monkeypatch):
    """What was old when it was seen is asked again once it is locked. Here the lock waits, so there is a between."""
    job = old(state=State.DEAD)
    texts = {"prune_pick": load("prune_pick", rows=500, events=20_000, bodies=0).replace(" skip locked", "")}
    monkeypatch.setattr(retention, "load", lambda name, **literals: texts.get(name) or load(name, **literals))
    [walk] = retention.walks(Ages(30 * 86_400.0, None))
    with transaction.atomic():
        queue.requeue([job.id])
        waiting = started_and_waiting(
            lambda: hand.run(walk.step(hand.connection)), backend=hand.connection.info.backend_pid
        )
    assert waiting() and walk.removed == 0
    assert Job.objects.get().state == State.QUEUED


def test_a_requeue_that_comes_too_late_finds_nothing(old, hand):
    job = old(state=State.DEAD)
    [walk] = retention.walks(Ages(30 * 86_400.0, None))
    hand.run(hand.connection.execute("begin"))
    hand.run(walk.step(hand.connection))
    waiting = started_and_waiting(queue.requeue, [job.id])
    hand.run(hand.connection.execute("commit"))
    assert waiting() == [] and not Job.objects.exists()


# Bodies.


def test_bodies_go_sooner_than_the_ledger(old, prune):
    job = old(8, State.DEAD)
    Attempt.objects.update(error_message=CANARY, decision=f"Dead-lettered. server_error: {CANARY}")
    JobResult.objects.update(error_message=CANARY, usage={"total_tokens": 11})
    told(job, "failed")
    told(job, "dead", of=HandlerCall)
    young = old(6)
    assert prune(bodies=7) == (1, 0)
    job.refresh_from_db()
    assert not JobRequest.objects.filter(job=job).exists() and not JobEvent.objects.filter(job=job).exists()
    attempt = Attempt.objects.get(job=job)
    assert (attempt.error_code, attempt.error_message) == ("server_error", None)
    assert attempt.decision == "Dead-lettered. server_error"
    assert JobResult.objects.get(job=job).usage == {"total_tokens": 11}
    assert {row.error for row in (WebhookDelivery.objects.get(), HandlerCall.objects.get())} == {None}
    assert CANARY not in str(job_json(job))
    assert JobRequest.objects.filter(job=young).exists() and JobEvent.objects.filter(job=young).exists()


def test_a_body_that_is_to_be_told_of_stays(old, prune):
    told(old(8), "pending")
    assert prune(bodies=7) == (0, 1)


def test_a_key_that_may_come_again_outlives_its_body(hand, client, pool, prune):
    def post(text="Hello."):
        asked = parse({"model": pool.name, "input": text, "metadata": {"case": CANARY}, "user": CANARY})
        return queue.submit_submission(client, asked, "k")

    first, _ = post()
    hand.settle(*hand.claim(pool))
    Job.objects.update(finished_at=timezone.now() - timedelta(hours=2))
    assert prune(bodies=1 / 24) == (1, 0)
    again, is_replay = post()
    assert (again.id, is_replay) == (first.id, True)
    request = JobRequest.objects.get()
    assert (request.body, request.prompt_hash, request.metadata, request.user) == ("", "", {}, None)
    assert job_json(Job.objects.get())["prompt_hash"] is None
    assert prune(bodies=1 / 24, from_start=True) == (0, 0), "there is nothing more to take away"


def test_without_its_body_a_job_is_not_requeued(old, prune, settings):
    settings.LLMJOBS_IDEMPOTENCY_KEEP_S = 40 * 86_400
    job = old(8, State.DEAD, request={"idempotency_key": "k"})
    assert prune(bodies=7) == (1, 0)
    assert queue.requeue([job.id]) == []


# The duty.


def test_without_an_age_nothing_ever_goes(old, hand, settings):
    settings.LLMJOBS_KEEP_JOBS_DAYS = settings.LLMJOBS_KEEP_BODIES_DAYS = 0
    old(10_000)
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert Job.objects.count() == 1


def test_the_duty_removes_by_the_ages_of_the_settings(old, hand, settings):
    settings.LLMJOBS_KEEP_JOBS_DAYS, settings.LLMJOBS_KEEP_BODIES_DAYS = 30, 7
    old(31)
    bodiless, whole = old(8), old(6)
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert set(Job.objects.all()) == {bodiless, whole}
    assert JobRequest.objects.get().job == whole
    marks = Retention.objects.get()
    assert marks.bodies_gone_to == bodiless.finished_at > marks.jobs_gone_to


def test_one_worker_at_a_time_prunes_and_not_twice_in_a_while(old, hand, other):
    old()
    other.run(other.connection.execute("begin"))
    other.run(other.connection.execute("select pg_advisory_xact_lock(hashtext('llmjobs.prune'), 0)"))
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert Job.objects.count() == 1, "another is at it"
    other.run(other.connection.execute("rollback"))
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert not Job.objects.exists()
    old()
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert Job.objects.count() == 1, "somebody looked a moment ago"
    Retention.objects.update(looked_at=timezone.now() - timedelta(minutes=2))
    hand.run(retention.round_of_duty(connect_of(hand)))
    assert not Job.objects.exists()


def test_workers_incidents_samples_and_links_go_when_they_are_as_old(old, hand, client, pool):
    past, now = timezone.now() - timedelta(days=31), timezone.now()
    for stopped_at, heartbeat_at in ((past, past), (None, past), (now, past), (None, now)):
        make_worker(stopped_at=stopped_at, heartbeat_at=heartbeat_at)
    holder = make_worker(heartbeat_at=past)
    make_job(State.RUNNING, client=client, model=pool, worker_id=holder.id)
    provider = Provider.objects.get()
    for closed_at in (past, now, None):
        Incident.objects.create(provider=provider, reason="quota", opened_at=past, closed_at=closed_at)
    for at in (past, now):
        PoolSample.objects.create(pool=pool, at=at, requests=0, tokens=0, refusals=0, queued=0, running=0, rpm=1, tpm=1)
    for number, expires_at in enumerate((past, now)):
        SharedLink.objects.create(job_id=number, hash=f"{number:064}", expires_at=expires_at)
    rest = hand.run(retention.remove_rest(hand.connection, 30 * 86_400.0))
    assert rest == (2, 1, 1, 1)
    assert Worker.objects.filter(id=holder.id).exists(), "its job was not taken back yet"
    assert Incident.objects.exclude(closed_at=None).get().closed_at == now
    Worker.objects.exclude(id=holder.id).update(heartbeat_at=now - timedelta(hours=2))
    assert hand.run(retention.remove_rest(hand.connection, 1.0)) == (0, 0, 0, 0), "however soon jobs go"


def test_a_prune_waits_for_nobody_and_nobody_for_it(old, prune, client, pool, hand):
    """A host's transaction that reads old jobs, and one that holds a job of the batch, stop nothing."""
    held = old(33)
    old(32)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("select count(*) from llmjobs_job")
        cursor.execute("select from llmjobs_job where id = %s for update", [held.id])
        assert prune(30) == (1, 0)
        together([lambda: submit(client, pool)])
        assert len(hand.claim(pool)) == 1
    assert prune(30) == (1, 0), "the next round begins with what was held"
