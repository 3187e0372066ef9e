"""Submits with the same idempotency key at once: one job, and a quick answer to everybody."""

import pytest
from django.db import connection, transaction

from llmjobs import queue
from llmjobs.errors import IdempotencyInProgress, IdempotencyKeyReused
from llmjobs.models import Job
from llmjobs.submissions import parse
from tests.concurrency.threads import started_and_waiting, together
from tests.factories import make_client

pytestmark = pytest.mark.django_db(transaction=True)


def submission(pool):
    return parse({"model": pool.name, "messages": [{"role": "user", "content": "Hello."}]})


def test_fifty_equal_submits_at_once_make_one_job(client, pool):
    made = together([lambda: queue.submit_submission(client, submission(pool), "key")] * 50)
    assert len({job.id for job, _ in made}) == 1
    assert [is_replay for _, is_replay in made].count(False) == 1
    assert Job.objects.count() == 1


def test_equal_keys_of_two_clients_do_not_meet(client, pool):
    other = make_client("other", tier="enterprise")
    with transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        [(_, is_replay)] = together([lambda: queue.submit_submission(other, submission(pool), "key")])
    assert not is_replay and Job.objects.count() == 2


def test_while_the_first_has_not_committed_the_second_is_told_so(client, pool):
    def second():
        with pytest.raises(IdempotencyInProgress) as caught:
            queue.submit_submission(client, submission(pool), "key")
        return caught.value

    with transaction.atomic():
        first, _ = queue.submit_submission(client, submission(pool), "key")
        [error] = together([second])
    assert (error.status, error.code) == (409, "idempotency_in_progress")
    again, is_replay = queue.submit_submission(client, submission(pool), "key")
    assert is_replay and again.id == first.id


def test_who_was_told_so_may_go_on_in_its_transaction(client, pool):
    """The host's transaction is not aborted by the refusal."""

    def second():
        with transaction.atomic():
            with pytest.raises(IdempotencyInProgress):
                queue.submit_submission(client, submission(pool), "key")
            return queue.submit_submission(client, submission(pool), "another")[0].id

    with transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        [job_id] = together([second])
    assert Job.objects.filter(id=job_id).exists()


def test_the_key_of_a_rolled_back_submit_is_free_again(client, pool):
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        raise RuntimeError
    _, is_replay = queue.submit_submission(client, submission(pool), "key")
    assert not is_replay


def test_who_waited_for_a_submit_that_was_rolled_back_makes_the_job(client, pool):
    with pytest.raises(RuntimeError), transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        waiting = started_and_waiting(queue.submit_submission, client, submission(pool), "key")
        raise RuntimeError
    job, is_replay = waiting()
    assert not is_replay and Job.objects.get().id == job.id


def test_who_waited_with_another_body_is_told_that_the_key_is_used(client, pool):
    other = parse({"model": pool.name, "input": "Something else."})
    with transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        waiting = started_and_waiting(queue.submit_submission, client, other, "key")
    with pytest.raises(IdempotencyKeyReused):
        waiting()
    assert Job.objects.count() == 1


def test_after_a_refusal_the_connection_waits_for_locks_as_before(client, pool):
    def second():
        with pytest.raises(IdempotencyInProgress):
            queue.submit_submission(client, submission(pool), "key")
        with connection.cursor() as cursor:
            cursor.execute("show lock_timeout")
            return cursor.fetchone()[0]

    with transaction.atomic():
        queue.submit_submission(client, submission(pool), "key")
        assert together([second]) == ["0"]
