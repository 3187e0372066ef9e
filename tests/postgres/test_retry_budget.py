"""A storm of retries does not keep a model down: they have a budget, a share of what it completes."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import Attempt, Job
from llmjobs.states import State
from tests.factories import make_model
from tests.hands import submit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def budget(settings):
    settings.LLMJOBS_RETRY_MIN_PER_S = 0.2  # two in ten seconds
    settings.LLMJOBS_RETRY_SHARE = 0.5


def fail(hand, client, pool, count):
    """So many jobs whose first attempt failed at the provider, due again now."""
    submit(client, pool, count)
    hand.settle(*hand.claim(pool, count), state=State.SCHEDULED)
    due(pool)


def due(pool):
    Job.objects.filter(state="scheduled", pool=pool).update(available_at=timezone.now())


def test_retries_are_held_to_the_least_and_wait_some_seconds_more(hand, client, pool):
    fail(hand, client, pool, 5)
    assert len(hand.stage()) == 2
    held = Job.objects.filter(state="scheduled")
    assert held.count() == 3
    assert all(timedelta(0) < job.available_at - timezone.now() <= timedelta(seconds=10) for job in held)
    due(pool)
    assert hand.stage() == [], "what waits to be claimed is of the budget"
    hand.claim(pool, 2)
    due(pool)
    assert hand.stage() == [], "what was made lately is, too"


def test_the_budget_grows_with_what_the_model_completes(hand, client, pool):
    submit(client, pool, 10)
    hand.settle(*hand.claim(pool, 10))
    fail(hand, client, pool, 8)
    assert len(hand.stage()) == 5


def test_it_is_of_the_last_ten_seconds(hand, client, pool):
    fail(hand, client, pool, 4)
    hand.stage()
    hand.settle(*hand.claim(pool, 2), state=State.SCHEDULED)
    Attempt.objects.update(claimed_at=timezone.now() - timedelta(seconds=11))
    due(pool)
    assert len(hand.stage()) == 2


def test_retries_that_can_not_run_use_up_no_budget_for_ever(hand, client, pool):
    """Those of a paused client, say: others of the model must go on."""
    fail(hand, client, pool, 4)
    assert len(hand.stage()) == 2
    ten_s = timedelta(seconds=10)
    Job.objects.filter(state="queued").update(available_at=timezone.now() - ten_s)
    Attempt.objects.update(claimed_at=timezone.now() - ten_s)
    due(pool)
    assert len(hand.stage()) == 2


def test_what_was_due_for_long_has_the_budget_of_now(hand, client, pool):
    """After an outage, say: just when a storm comes."""
    fail(hand, client, pool, 6)
    Job.objects.filter(state="scheduled").update(available_at=timezone.now() - timedelta(minutes=1))
    assert [len(hand.stage()), len(hand.stage())] == [2, 0]


def test_a_lost_lease_needs_no_budget(hand, client, pool):
    fail(hand, client, pool, 5)
    Attempt.objects.update(outcome="lost")
    assert len(hand.stage()) == 5


def test_what_was_delayed_and_what_is_over_need_no_budget(hand, client, pool):
    submit(client, pool, 4, delay_s=60)
    due(pool)
    assert len(hand.stage()) == 4
    fail(hand, client, pool, 3)
    Job.objects.filter(failures=1).update(retry_until=timezone.now())
    assert len(hand.stage()) == 3, "each job ends"


def test_a_storm_holds_up_no_other_model(hand, client, pool, monkeypatch):
    monkeypatch.setattr("llmjobs.queue.DUTY_ROWS", 2)
    fail(hand, client, pool, 8)
    other = make_model("other")
    [job] = submit(client, other, delay_s=60)
    due(other)
    staged = [wake.job_id for _ in range(2) for wake in hand.stage()]
    assert job.id in staged and len(staged) == 3, "at once, however many retries stand before it"


def test_a_retry_that_was_requeued_by_an_operator_has_no_failures(hand, client, pool):
    submit(client, pool, 3)
    claimed = hand.claim(pool, 3)
    hand.settle(*claimed, state=State.DEAD)
    queue.requeue([job.id for job in claimed])
    assert Attempt.objects.filter(is_retry=True).count() == 0
    hand.claim(pool, 3)
    assert Attempt.objects.filter(is_retry=True).count() == 0
