"""Expected costs: the first guess is the request's, the next ones are the client's settled jobs'."""

import pytest

from llmjobs import lessons
from llmjobs.models import Attempt, Client, FlowTurn
from llmjobs.states import Size, State
from tests.factories import make_client, make_model
from tests.hands import submit

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """A lesson is kept for some seconds; a test has no time for that."""
    monkeypatch.setattr(lessons, "KEPT_S", 0.0)


def settled(hand, pool, count, **ends):
    claimed = [job for _ in range(count) for job in hand.claim(pool)]
    assert len(claimed) == count
    hand.settle(*claimed, **ends)


def test_the_first_guess_is_the_request_s(hand, client, pool):
    [job] = submit(client, pool)
    [claimed] = hand.claim(pool)
    assert claimed.charged == job.est_cost == job.est_input_tokens + 256


def test_a_claim_charges_what_the_client_s_jobs_have_cost_by_their_estimates(hand, client, pool):
    submit(client, pool, 100)
    for _ in range(60):
        settled(hand, pool, 1, cost=26.4, output_tokens=22)
    [claimed] = hand.claim(pool)
    assert 26.4 < claimed.charged < 50, "near a tenth of the first guess of 264, which still has a small say"
    assert Attempt.objects.latest("id").charged == claimed.charged


def test_jobs_of_another_client_or_model_teach_nothing(hand, client, pool):
    elsewhere, stranger = make_model(), make_client(tier="enterprise")
    submit(client, pool, 21)
    settled(hand, pool, 20, cost=26.4, output_tokens=22)
    submit(stranger, pool)
    submit(client, elsewhere)
    hand.claim(pool, 2)
    assert Attempt.objects.get(client=stranger).charged == 263
    [claimed] = hand.claim(elsewhere)
    assert claimed.charged == 263


def test_a_completed_job_whose_use_nobody_knows_teaches_nothing(hand, client, pool):
    submit(client, pool, 5)
    settled(hand, pool, 4)
    hand.fold()
    assert (FlowTurn.objects.get().cost_ratio, FlowTurn.objects.get().output_tokens) == (1, None)


@pytest.mark.parametrize("state", [State.SCHEDULED, State.FAILED, State.CANCELLED, State.QUEUED])
def test_only_completed_jobs_teach(hand, client, pool, state):
    submit(client, pool, 5)
    settled(hand, pool, 4, state=state, cost=1.0, output_tokens=1)
    hand.fold()
    assert FlowTurn.objects.get().cost_ratio == 1


def test_one_strange_job_hardly_moves_what_many_taught(hand, client, pool):
    submit(client, pool, 70)
    settled(hand, pool, 66, cost=264.0, output_tokens=256)
    settled(hand, pool, 1, cost=26_400.0, output_tokens=26_000)
    hand.fold()
    assert 1 < FlowTurn.objects.get().cost_ratio < 3


def test_the_next_submit_expects_as_many_tokens_as_came_before(hand, client, pool):
    [before] = submit(client, pool)
    settled(hand, pool, 1)
    submit(client, pool, 60)
    settled(hand, pool, 60, cost=904.0, output_tokens=900)
    hand.fold()
    [after] = submit(client, pool)
    assert (before.est_output_tokens, before.size) == (256, Size.SHORT)
    assert 800 < after.est_output_tokens < 900, "the first guess still has a small say"
    assert after.size == Size.LONG


def test_a_limit_of_the_request_still_bounds_its_estimate(hand, client, pool):
    submit(client, pool, 60)
    settled(hand, pool, 60, cost=904.0, output_tokens=900)
    hand.fold()
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_completion_tokens": 50}
    [job] = submit(client, pool, body=body)
    assert job.est_output_tokens == 50


def test_a_lesson_is_kept_for_some_seconds_and_by_client(hand, client, pool, monkeypatch):
    monkeypatch.setattr(lessons, "KEPT_S", 60.0)
    assert lessons.output_tokens(pool, client) == 256
    submit(client, pool, 30)
    settled(hand, pool, 30, cost=904.0, output_tokens=900)
    hand.fold()
    assert lessons.output_tokens(pool, client) == 256, "no second look within that time"
    monkeypatch.setattr(lessons, "_kept", {})
    assert lessons.output_tokens(pool, client) > 700
    assert lessons.output_tokens(pool, Client(id=0)) == 256


def test_what_is_kept_is_bounded(client, pool, monkeypatch):
    monkeypatch.setattr(lessons, "KEPT_MAX", 3)
    monkeypatch.setattr(lessons, "_kept", {})
    for number in range(10):
        lessons.output_tokens(pool, Client(id=number))
    assert len(lessons._kept) <= 3
