"""Equal submits at once: retries wait for their first try, joins for each other, and one job is made."""

import pytest
from django.db import transaction

from llmjobs import queue
from llmjobs.errors import IdempotencyInProgress
from llmjobs.models import Job
from llmjobs.submissions import parse
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client

pytestmark = pytest.mark.django_db(transaction=True)


def submit(client, pool, count=None, **fields):
    asked = parse({"model": pool.name, "messages": [{"role": "user", "content": "Hello."}], **fields})
    job, _ = queue.submit_submission(client, asked, api_key_id=1, retry_count=count)
    return job.id


def submit_or_none(*args, **fields):
    """None: told to ask again, on a machine where fifty commits take seconds."""
    try:
        return submit(*args, **fields)
    except IdempotencyInProgress:
        return None


def test_a_retry_that_overtakes_its_first_try_waits_for_it(client, pool):
    with transaction.atomic():
        first = submit(client, pool, 0)
        second = started_and_waiting(submit, client, pool, 1)
    assert second() == first


def test_a_retry_of_a_first_try_that_was_rolled_back_makes_the_job(client, pool):
    with pytest.raises(RuntimeError), transaction.atomic():
        submit(client, pool, 0)
        second = started_and_waiting(submit, client, pool, 1)
        raise RuntimeError
    made = second()
    assert Job.objects.get().id == made


def test_retries_at_once_make_one_job(client, pool):
    made = together([lambda: submit_or_none(client, pool, 1)] * 20)
    assert {Job.objects.get().id} == set(made) - {None}


def test_first_tries_do_not_wait_for_each_other(client, pool):
    with transaction.atomic():
        first = submit(client, pool, 0)
        [second] = together([lambda: submit(client, pool, 0)])
    assert first != second


def test_fifty_joins_at_once_make_one_job(client, pool):
    made = together([lambda: submit_or_none(client, pool, dedupe="join")] * 50)
    assert {Job.objects.get().id} == set(made) - {None}


def test_joins_of_two_clients_do_not_meet(client, pool):
    other = make_client("other")
    with transaction.atomic():
        first = submit(client, pool, dedupe="join")
        [second] = together([lambda: submit(other, pool, dedupe="join")])
    assert first != second


@pytest.mark.parametrize("fields", [{"dedupe": "join"}, {"count": 1}])
def test_who_would_wait_for_a_long_transaction_is_told_to_ask_again(client, pool, fields):
    def second():
        with pytest.raises(IdempotencyInProgress) as caught:
            submit(client, pool, **fields)
        return caught.value.status

    with transaction.atomic():
        submit(client, pool, **fields)
        assert together([second]) == [409]


def test_of_two_transactions_that_join_each_others_jobs_one_is_told_and_goes_on(client, pool):
    """In opposite orders: neither waits for ever, and nobody's transaction is aborted."""
    hello, there = {"dedupe": "join"}, {"dedupe": "join", "messages": [{"role": "user", "content": "There."}]}

    def both(one, two):
        with transaction.atomic():
            mine = submit(client, pool, **one)
            try:
                return mine, submit(client, pool, **two)
            except IdempotencyInProgress:
                return mine, None

    with transaction.atomic():
        mine = submit(client, pool, **hello)
        waiting = started_and_waiting(both, there, hello)
        try:
            crossed = submit(client, pool, **there)
        except IdempotencyInProgress:
            crossed = None
    others, others_crossed = waiting()
    assert Job.objects.filter(id__in=[mine, others]).count() == 2
    assert (crossed, others_crossed) in [(others, None), (None, mine)]
