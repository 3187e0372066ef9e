"""Submits that make no job: an SDK's own retry of a post, and `dedupe: "join"`."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from llmjobs import joining, queue
from llmjobs.errors import IdempotencyKeyReused, InvalidRequest, QueueFull
from llmjobs.models import Client, Job
from llmjobs.states import TERMINAL
from llmjobs.submissions import parse
from tests.factories import make_client
from tests.hands import settlement

pytestmark = pytest.mark.django_db(transaction=True)

KEY, ANOTHER_KEY = 7, 8  # ids of API keys


def a_try(client, pool, count, *, api_key_id=KEY, key=None, **fields):
    """The id of the job that a post is answered with."""
    asked = parse({"model": pool.name, "messages": [{"role": "user", "content": "Hello."}], **fields})
    job, _ = queue.submit_submission(client, asked, key, api_key_id=api_key_id, retry_count=count)
    return job.id


def a_join(client, pool, **fields):
    return a_try(client, pool, None, dedupe="join", **fields)


# An SDK's own retry.


def test_a_retry_is_answered_with_the_job_that_the_first_try_made(client, pool):
    first = a_try(client, pool, 0)
    assert [a_try(client, pool, count) for count in (1, 2)] == [first, first]


def test_a_retry_whose_first_try_made_nothing_makes_the_job(client, pool):
    made = a_try(client, pool, 1)
    assert a_try(client, pool, 2) == made
    assert Job.objects.count() == 1


def test_two_first_tries_were_both_meant_and_the_later_one_is_tried_again(client, pool):
    first, second = a_try(client, pool, 0), a_try(client, pool, 0)
    assert first != second
    assert a_try(client, pool, 1) == second


@pytest.mark.parametrize(
    "unlike",
    [{"api_key_id": ANOTHER_KEY}, {"api_key_id": None}, {"priority": "low"}, {"count": None}, {"key": "k"}],
    ids=str,
)
def test_what_is_not_the_same_post_is_no_retry_of_it(client, pool, unlike):
    """Another API key, none at all, another body, no count; and an Idempotency-Key says it more exactly."""
    first = a_try(client, pool, 0)
    assert a_try(client, pool, **{"count": 1, **unlike}) != first


def test_a_retry_never_joins_another_clients_job(client, pool):
    first = a_try(client, pool, 0)
    assert a_try(make_client("other"), pool, 1) != first


def test_after_its_window_a_retry_makes_a_job(client, pool, settings):
    first = a_try(client, pool, 0)
    settings.LLMJOBS_RETRY_JOIN_S = 900
    Job.objects.update(created_at=timezone.now() - timedelta(seconds=901))
    assert a_try(client, pool, 1) != first


def test_without_a_window_no_retry_joins(client, pool, settings):
    settings.LLMJOBS_RETRY_JOIN_S = 0
    assert a_try(client, pool, 0) != a_try(client, pool, 1)


def test_a_job_that_has_ended_is_what_a_retry_gets_too(hand, client, pool):
    first = a_try(client, pool, 0)
    hand.settle(*hand.claim(pool))
    assert a_try(client, pool, 1) == first


# dedupe: "join".


def test_an_equal_job_in_flight_is_joined(hand, client, pool):
    first = a_try(client, pool, None, metadata={"case": "1"})
    assert a_join(client, pool, metadata={"case": "2"}, user="somebody") == first, "queued"
    [claimed] = hand.claim(pool)
    assert a_join(client, pool, api_key_id=ANOTHER_KEY) == first, "running"
    hand.settle_all([settlement(claimed, "scheduled", delay_s=60.0)])
    assert a_join(client, pool) == first, "waiting for its retry"
    assert Job.objects.count() == 1


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_job_that_has_ended_is_not_joined(hand, client, pool, state):
    first = a_try(client, pool, None)
    Job.objects.filter(id=first).update(state=state, finished_at=timezone.now())
    assert a_join(client, pool) != first


def test_who_did_not_ask_for_it_joins_nothing(client, pool):
    assert a_join(client, pool) != a_try(client, pool, None)


def test_a_job_whose_cancel_was_asked_for_is_not_joined(hand, client, pool):
    first = a_try(client, pool, None)
    hand.claim(pool)
    queue.cancel([first])
    assert a_join(client, pool) != first


def test_another_clients_equal_job_is_not_joined(client, pool):
    assert a_join(client, pool) != a_join(make_client("other"), pool)


@pytest.mark.parametrize("unlike", [{"endpoint": "/v1/responses", "input": "Hello.", "messages": None}])
def test_another_request_is_not_joined(client, pool, unlike):
    first = a_join(client, pool)
    assert a_join(client, pool, messages=[{"role": "user", "content": "Hello!"}]) != first
    assert a_join(client, pool, **unlike) != first


# The option, what promises less, and what promises as much or more.
WEAKER = {
    "priority": ("normal", "low", "high"),
    "delay_s": (60, 3600, 0),
    "expires_in_s": (600, 60, 6000),
    "timeout_s": (60, 30, 90),
    "max_attempts": (3, 2, 4),
    "retry_for_s": (600, 60, 6000),
    "max_cost_usd": (2, 1, 3),
    "on_interrupt": ("restart", "keep", "restart"),
    "webhook_url": ("https://a.example/", "https://b.example/", "https://a.example/"),
}


@pytest.mark.parametrize("option", WEAKER)
def test_a_job_is_joined_if_it_promises_no_less_than_was_asked(client, pool, option):
    asked, less, more = WEAKER[option]
    weak = a_try(client, pool, None, **{option: less})
    strong = a_try(client, pool, None, **{option: more})
    assert a_join(client, pool, **{option: asked}) == strong
    assert a_join(client, pool, **{option: less}) == weak, "what is asked alike is joined"


@pytest.mark.parametrize("bound", [{"expires_in_s": 600}, {"max_cost_usd": 1}])
def test_who_sets_no_bound_joins_no_job_that_has_one(client, pool, bound):
    bounded = a_try(client, pool, None, **bound)
    assert a_join(client, pool) != bounded


def test_a_job_past_its_deadline_is_not_joined_before_somebody_ends_it(client, pool):
    first = a_join(client, pool, expires_in_s=600)
    Job.objects.update(
        expires_at=timezone.now() - timedelta(seconds=1), created_at=timezone.now() - timedelta(seconds=601)
    )
    assert a_join(client, pool, expires_in_s=600) != first


def test_a_key_finds_the_job_that_it_joined_when_that_has_ended(hand, client, pool):
    first = a_try(client, pool, None)
    assert a_join(client, pool, key="k") == first
    hand.settle(*hand.claim(pool))
    assert a_join(client, pool, key="k") == first
    assert a_join(client, pool, key="another") != first


def test_who_brings_a_key_joins_no_job_that_has_another(client, pool):
    """A job remembers one: when it has ended, the same post again would buy another."""
    first = a_join(client, pool, key="k")
    second = a_join(client, pool, key="another")
    assert second != first
    Job.objects.update(state="cancelled", finished_at=timezone.now())
    assert [a_join(client, pool, key="k"), a_join(client, pool, key="another")] == [first, second]


def test_a_key_that_joined_comes_again_with_the_same_body_alone(client, pool):
    first = a_join(client, pool)
    assert a_join(client, pool, key="k", priority="low") == first
    assert a_join(client, pool, key="k", priority="low") == first
    with pytest.raises(IdempotencyKeyReused):
        a_join(client, pool, key="k", priority="high")


def test_a_full_queue_refuses_nobody_who_joins(client, pool):
    Client.objects.update(max_queued=1)
    first = a_try(client, pool, 0)
    assert [a_join(client, pool), a_try(client, pool, 1)] == [first, first]
    with pytest.raises(QueueFull):
        a_try(client, pool, 0)


def test_among_many_none_joins(client, pool):
    """Nothing says which of the answers would be whose."""
    asked = parse({"model": pool.name, "input": "hi", "dedupe": "join"})
    with pytest.raises(InvalidRequest) as caught:
        queue.submit_submissions(client, [asked, asked])
    assert caught.value.param == "dedupe" and not Job.objects.exists()


def test_in_python_a_submit_joins_in_the_callers_transaction(client, pool):
    with transaction.atomic():
        made = [queue.submit(client=client, model=pool.name, input="hi", dedupe="join").id for _ in range(2)]
    assert made[0] == made[1]


def test_of_many_equal_jobs_only_the_newest_are_looked_at(client, pool, monkeypatch):
    monkeypatch.setattr(joining, "LOOKED_AT_ROWS", 2)
    oldest = a_try(client, pool, None)
    ids = [a_try(client, pool, None) for _ in range(2)]
    assert a_join(client, pool) == ids[0] != oldest


@pytest.mark.parametrize("statement", ["join", "retried"])
def test_equal_jobs_are_found_by_their_index(client, pool, statement):
    """Newest first, without a sort: a thousand index entries at most, however many there are."""
    a_join(client, pool)
    asked = parse({"model": pool.name, "input": "hi"})
    params = {name: getattr(asked, name) for name in joining.OPTIONS}
    params |= {
        "client_id": client.id,
        "prompt_hash": asked.prompt_hash,
        "fingerprint": "",
        "api_key_id": 1,
        "has_key": False,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("set local enable_seqscan = off; set local enable_bitmapscan = off")
        cursor.execute("explain " + joining.load(statement, rows=1_000), params | {"within_s": 1})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "using request_prompt" in plan, plan
    assert plan.count("Sort") <= 2, plan  # the ids that are left, and their key: not the requests
