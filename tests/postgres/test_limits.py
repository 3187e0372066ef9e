"""A full queue refuses what is more, at the call or at the commit; nothing but a submit is ever refused."""

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F

from llmjobs import counts, limits, queue
from llmjobs.errors import InvalidRequest, QueueFull
from llmjobs.models import Attempt, Client, Job, JobCountChange, JobCountTurn, Tier
from llmjobs.states import State
from llmjobs.submissions import parse
from tests.concurrency.threads import together
from tests.factories import make_client
from tests.hands import submit
from tests.postgres.counting import differences, pass_time

pytestmark = pytest.mark.django_db(transaction=True)


def limit(client: Client, **fields) -> None:
    Client.objects.filter(id=client.id).update(**fields)


def a_submission(pool):
    return parse({"model": pool.name, "messages": [{"role": "user", "content": "Say hello."}]})


def test_a_client_has_a_thousand_jobs_waiting_and_not_one_more(client, pool):
    submit(client, pool, 999)
    submit(client, pool)
    with pytest.raises(QueueFull) as caught:
        submit(client, pool)
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert "1,000 jobs of acme" in str(caught.value) and "1,001" in str(caught.value)
    assert Job.objects.count() == 1_000 and differences() == []


def test_many_at_once_are_taken_in_all_or_none(client, pool):
    limit(client, max_queued=5)
    submit(client, pool, 3)
    with pytest.raises(QueueFull):
        submit(client, pool, 3)
    assert Job.objects.count() == 3
    submit(client, pool, 2)


@pytest.mark.parametrize(
    "own, of_tier, most", [(2, 1, 2), (2, None, 2), (None, 3, 3), (0, 3, 0)], ids=["own", "own alone", "tier's", "none"]
)
def test_a_client_s_own_limit_goes_before_its_tier_s(client, pool, own, of_tier, most):
    limit(client, max_queued=own)
    Tier.objects.update(max_queued=of_tier)
    for _ in range(most):
        submit(client, pool)
    with pytest.raises(QueueFull):
        submit(client, pool)


def test_without_a_limit_there_is_none(client, pool):
    Tier.objects.update(max_queued=None)
    submit(client, pool, 1_500)


def test_what_runs_or_is_over_takes_no_room_and_what_waits_for_its_time_does(hand, client, pool):
    limit(client, max_queued=2)
    submit(client, pool)
    submit(client, pool, delay_s=60)
    with pytest.raises(QueueFull):
        submit(client, pool, delay_s=60)
    [claimed] = hand.claim(pool)
    submit(client, pool)
    hand.settle(claimed)
    with pytest.raises(QueueFull):
        submit(client, pool)


def test_another_client_s_jobs_take_no_room(client, pool):
    limit(client, max_queued=1)
    submit(make_client("other"), pool, 5)
    submit(client, pool)


def test_estimated_tokens_are_limited_too(client, pool):
    [job] = submit(client, pool)
    limit(client, max_queued_tokens=3 * (job.est_input_tokens + job.est_output_tokens))
    submit(client, pool, 2)
    with pytest.raises(QueueFull, match="estimated tokens of acme"):
        submit(client, pool)


def test_a_job_that_would_never_fit_is_not_told_to_wait(client, pool):
    [job] = submit(client, pool)
    limit(client, max_queued_tokens=job.est_input_tokens + job.est_output_tokens - 1)
    client.refresh_from_db()
    with pytest.raises(InvalidRequest, match="it never fits") as caught:
        submit(client, pool)
    assert not isinstance(caught.value, QueueFull) and caught.value.code == "never_fits"


def test_the_whole_backlog_is_bounded(client, pool, settings):
    settings.LLMJOBS_BACKLOG_MAX = 5
    submit(client, pool, 3)
    counts.help_count(least=0)
    submit(make_client("other"), pool, 2)
    with pytest.raises(QueueFull, match="5 jobs of all clients"):
        submit(client, pool)
    with transaction.atomic(), pytest.raises(QueueFull, match="5 jobs of all clients"):
        submit(client, pool)


def test_room_in_the_backlog_that_was_not_counted_yet_is_room(hand, client, pool, settings):
    """Claims are not among what is looked at first; near the bound everything is."""
    settings.LLMJOBS_BACKLOG_MAX = 5
    submit(client, pool, 5)
    hand.claim(pool, 2)
    with transaction.atomic():
        submit(client, pool)
    submit(client, pool)
    with pytest.raises(QueueFull):
        submit(client, pool)


def test_retries_stages_and_an_operator_s_requeue_are_never_refused(hand, client, pool):
    submit(client, pool, 4)
    failed, retried, staged = hand.claim(pool, 3)
    limit(client, max_queued=1)
    hand.settle(failed, state=State.DEAD)
    hand.settle(retried, state=State.QUEUED)
    hand.settle(staged, state=State.SCHEDULED)
    assert queue.requeue([failed.id]) == [failed.id]
    Job.objects.filter(id=staged.id).update(available_at=F("created_at"))
    assert len(hand.stage()) == 1
    assert Job.objects.filter(state="queued").count() == 4


# Inside a caller's transaction.


def test_inside_a_transaction_a_full_queue_is_told_at_once_and_the_transaction_goes_on(client, pool):
    limit(client, max_queued=1)
    with transaction.atomic():
        submit(client, pool)
        with pytest.raises(QueueFull):
            submit(client, pool)
        assert queue.cancel([Job.objects.get().id])
        submit(client, pool)
    assert Job.objects.filter(state="queued").count() == 1


def test_what_fills_up_meanwhile_refuses_the_commit(client, pool):
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        submit(client, pool, 2)
        limit(client, max_queued=1)
    assert caught.value.__cause__.sqlstate == limits.SQLSTATE
    assert Job.objects.count() == 0 and differences() == []


def test_what_a_savepoint_took_back_takes_no_room(client, pool):
    limit(client, max_queued=2)
    other = make_client("other", max_queued=1)
    with transaction.atomic():
        submit(client, pool)
        with transaction.atomic():
            submit(other, pool)
            submit(client, pool)
            transaction.set_rollback(True)
        submit(client, pool)
    submit(other, pool)
    assert Job.objects.count() == 3 and differences() == []


def test_several_submits_of_one_transaction_count_together(client, pool):
    other = make_client("other", max_queued=1)
    limit(client, max_queued=2)
    with pytest.raises(DatabaseError), transaction.atomic():
        submit(client, pool)
        submit(other, pool)
        submit(client, pool)
        limit(client, max_queued=1)
    with transaction.atomic():
        submit(client, pool)
        submit(other, pool)
    assert Job.objects.count() == 2


def test_a_commit_that_comes_late_counts_from_then_on(client, pool):
    """Its rows are behind the bound by then; without new ids nobody would count them until the next sweep."""
    limit(client, max_queued=4)
    helper = make_client("helper")
    with transaction.atomic():
        submit(client, pool, 2)
        submit(client, pool)
        for _ in range(3):
            together([lambda: (submit(helper, pool), pass_time(3), counts.help_count(least=0))])
    bound = JobCountTurn.objects.get().bound_id
    assert bound > 3 and not JobCountChange.objects.filter(id__lt=bound).exists()
    submit(client, pool)
    with pytest.raises(QueueFull):
        submit(client, pool)


def test_a_commit_just_after_a_count_that_took_younger_rows_counts(client, pool):
    limit(client, max_queued=2)
    helper = make_client("helper")
    with transaction.atomic():
        submit(client, pool)
        together([lambda: (submit(helper, pool), counts.help_count(least=0))])
    assert JobCountChange.objects.get().id < JobCountTurn.objects.get().counted_to
    submit(client, pool)
    with pytest.raises(QueueFull):
        submit(client, pool)


# With an Idempotency-Key.


def test_a_replay_is_answered_by_a_full_queue_too(client, pool):
    limit(client, max_queued=1)
    first, _ = queue.submit_submission(client, a_submission(pool), "key")
    again, is_replay = queue.submit_submission(client, a_submission(pool), "key")
    assert is_replay and again.id == first.id
    with pytest.raises(QueueFull):
        queue.submit_submission(client, a_submission(pool), "another key")
    with transaction.atomic(), pytest.raises(QueueFull):
        queue.submit_submission(client, a_submission(pool), "another key")


# When to come again.


def test_without_history_one_comes_again_in_half_a_minute(client, pool):
    limit(client, max_queued=1)
    submit(client, pool)
    assert _refusal(client, pool).retry_after_s == limits.RETRY_AFTER_S


def test_one_comes_again_when_as_much_will_have_started(hand, client, pool):
    """Each took 5 seconds, one after the other: 10 jobs too many take 50."""
    submit(client, pool, 20)
    hand.settle(*hand.claim(pool, 20))
    _attempts_ago(5)
    limit(client, max_queued=10)
    submit(client, pool, 5)
    assert _refusal(client, pool, 15).retry_after_s == pytest.approx(50, abs=2)
    assert _refusal(client, pool, 6).retry_after_s == pytest.approx(5, abs=1)


def test_for_tokens_it_is_the_jobs_that_hold_them(hand, client, pool):
    jobs = submit(client, pool, 20)
    hand.settle(*hand.claim(pool, 20))
    _attempts_ago(5)
    limit(client, max_queued_tokens=10 * (jobs[0].est_input_tokens + jobs[0].est_output_tokens))
    submit(client, pool, 10)
    assert _refusal(client, pool, 4).retry_after_s == pytest.approx(20, abs=2)


def test_starts_of_long_ago_promise_nothing_and_no_wait_is_longer_than_an_hour(hand, client, pool):
    submit(client, pool, 1)
    hand.settle(*hand.claim(pool, 1))
    limit(client, max_queued=1)
    submit(client, pool)
    _attempts_ago(590)
    assert _refusal(client, pool, 100).retry_after_s == limits.RETRY_AFTER_MAX_S
    _attempts_ago(610)
    assert _refusal(client, pool, 100).retry_after_s == limits.RETRY_AFTER_S


def _refusal(client, pool, count=1) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        submit(client, pool, count)
    return caught.value


def _attempts_ago(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "update llmjobs_attempt set claimed_at = statement_timestamp() - make_interval(secs => %s)", [seconds]
        )
    assert Attempt.objects.exists()
