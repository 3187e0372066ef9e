"""Settle: the end of an attempt, written by who holds the lease and by nobody else."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.events import Event
from llmjobs.models import Attempt, Inbox, Job, JobEvent, JobResult, Worker
from llmjobs.states import State
from tests.hands import Hand, claimed_job, settlement, submit

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_answer_is_kept_with_what_it_used(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    states = hand.settle(
        claimed, output='{"a":1}', output_text="hi", usage=usage, input_tokens=9, output_tokens=4, cost=13.0,
        cost_usd="0.00002500", provider_request_id="req_1", sent_ago_s=2.0, first_token_ago_s=1.0,
    )  # fmt: skip
    assert states == {claimed.id: "completed"}
    job = Job.objects.select_related("result").get()
    assert (job.state, job.worker_id, job.failures, job.epoch) == (State.COMPLETED, None, 0, 3)
    assert job.finished_at is not None
    assert (job.result.output, job.result.output_text, job.result.usage) == ('{"a":1}', "hi", usage)
    assert (job.result.cost_usd, job.result.error_code) == (Decimal("0.000025"), None)
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.input_tokens, attempt.output_tokens, attempt.cost) == ("completed", 9, 4, 13)
    assert (attempt.provider_request_id, attempt.decision) == ("req_1", "as the test has it")
    assert timedelta(seconds=0.99) < attempt.first_token_at - attempt.sent_at < timedelta(seconds=1.01)
    assert attempt.claimed_at <= attempt.ended_at


def test_a_stale_lease_cannot_settle(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.release(claimed)
    [again] = hand.claim(pool)
    assert hand.settle(claimed, output="late") == {claimed.id: "settled"}, "its own release, looked up"
    job = Job.objects.get()
    assert (job.state, job.attempt) == (State.RUNNING, 2)
    assert hand.settle(again) == {claimed.id: "completed"}


def test_an_attempt_of_another_worker_cannot_be_settled(hand, other, client, pool):
    """A failover may give an attempt's number twice: the worker is part of the lease."""
    claimed = claimed_job(hand, client, pool)
    assert other.settle(claimed) == {}
    assert Job.objects.get().state == State.RUNNING
    assert Attempt.objects.get().outcome is None


def test_an_attempt_that_was_reclaimed_cannot_be_settled(hand, other, client, pool, settings):
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    claimed = claimed_job(hand, client, pool)
    Worker.objects.filter(id=hand.worker).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    other.reclaim()
    assert hand.settle(claimed, output="late") == {}
    assert JobResult.objects.get().output is None
    assert Attempt.objects.get().outcome == "lost"


def test_a_settle_whose_acknowledgement_was_lost_is_no_lost_lease(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(claimed)
    assert hand.settle(claimed) == {claimed.id: "settled"}
    assert JobEvent.objects.filter(type="done").count() == 1


def test_a_settle_sent_twice_counts_once(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    for _ in range(2):
        hand.settle(claimed, state=State.SCHEDULED, cost=99.0, cost_usd="0.5", error_code="x", error_message="y")
    assert Job.objects.get().failures == 1
    assert JobResult.objects.get().cost_usd == Decimal("0.5")
    assert sum(Inbox.objects.values_list("running", flat=True)) == -1


def test_a_failure_waits_for_its_backoff_and_keeps_its_error(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(
        claimed, state=State.SCHEDULED, delay_s=60.0, error_code="server_error", error_message="sorry",
        error_class="unknown", provider_status=500, output_text="half",
    )  # fmt: skip
    job = Job.objects.select_related("result").get()
    assert (job.state, job.failures, job.finished_at) == (State.SCHEDULED, 1, None)
    assert timedelta(seconds=59) < job.available_at - timezone.now() <= timedelta(seconds=60)
    assert (job.result.error_code, job.result.provider_status, job.result.error_attempt) == ("server_error", 500, 1)
    event = JobEvent.objects.latest("seq")
    assert (event.type, event.data["status"], event.data["attempt"]) == ("status", "scheduled", 1)
    assert event.data["available_at"]


def test_an_answer_takes_away_the_error_of_the_attempts_before(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(
        claimed, state=State.SCHEDULED, error_code="x", error_message="y", error_class="unknown", provider_status=500
    )
    hand.stage()
    hand.settle(*hand.claim(pool), output="{}")
    result = JobResult.objects.get()
    assert (result.error_code, result.error_class, result.provider_status, result.error_attempt) == (None,) * 4


def test_the_cost_of_a_job_is_that_of_all_its_attempts(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(claimed, state=State.SCHEDULED, cost_usd="0.25")
    hand.stage()
    [again] = hand.claim(pool)
    assert again.spent_usd == Decimal("0.25")
    hand.settle(again, cost_usd="0.50")
    assert JobResult.objects.get().cost_usd == Decimal("0.75")


def test_without_a_price_a_job_has_no_cost(hand, client, pool):
    hand.settle(claimed_job(hand, client, pool))
    assert JobResult.objects.get().cost_usd is None


@pytest.mark.parametrize("state", [State.QUEUED, State.SCHEDULED])
def test_on_the_way_back_to_the_queue_a_cancel_wins(hand, client, pool, state):
    claimed = claimed_job(hand, client, pool)
    queue.cancel([claimed.id])
    assert hand.settle(claimed, state=state, output_text="half") == {claimed.id: "cancelled"}
    job = Job.objects.select_related("result").get()
    assert (job.state, job.result.output_text) == (State.CANCELLED, "half")
    assert sum(Inbox.objects.values_list("queued", flat=True)) == 0, "it is not in its lane again"
    assert JobEvent.objects.latest("seq").data == {"status": "cancelled"}


def test_an_answer_that_had_finished_wins_over_a_cancel(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    queue.cancel([claimed.id])
    assert hand.settle(claimed) == {claimed.id: "completed"}


def test_the_last_events_come_with_the_settle_and_before_its_end(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle_all(
        [settlement(claimed)], [Event(claimed.id, claimed.attempt, (claimed.epoch << 20) + 1, "delta", {"text": "bye"})]
    )
    assert list(JobEvent.objects.order_by("seq").values_list("type", flat=True)) == ["status", "delta", "done"]


def test_a_batch_settles_those_that_are_held_and_tells_those_that_are_not(hand, other, client, pool):
    submit(client, pool, 4)
    mine, theirs = hand.claim(pool, 2), other.claim(pool, 2)
    states = hand.settle(*mine, *theirs)
    assert states == {claimed.id: "completed" for claimed in mine}


def test_a_batch_may_end_each_attempt_differently(hand, client, pool):
    submit(client, pool, 5)
    claimed = hand.claim(pool, 5)
    ends = [State.COMPLETED, State.FAILED, State.DEAD, State.SCHEDULED, State.QUEUED]
    hand.settle_all([settlement(job, end) for job, end in zip(claimed, ends, strict=True)])
    assert list(Job.objects.order_by("id").values_list("state", flat=True)) == ends


def test_a_settle_waits_for_no_claim_and_a_claim_for_no_settle(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    [waiting] = submit(client, pool)
    with transaction.atomic():
        with transaction.get_connection().cursor() as cursor:
            cursor.execute("select 1 from llmjobs_turnstile for update")
        assert hand.settle(claimed) == {claimed.id: "completed"}
    other.run(other.connection.execute("begin"))
    other.run(other.connection.execute("select from llmjobs_job where id = %s for update", [claimed.id]))
    assert [one.id for one in hand.claim(pool)] == [waiting.id]
    other.run(other.connection.execute("rollback"))


def test_a_released_job_is_queued_at_its_old_place_without_a_failure(hand, client, pool):
    first, second = submit(client, pool, 2)
    [claimed] = hand.claim(pool)
    hand.release(claimed)
    job = Job.objects.get(id=first.id)
    assert (job.state, job.failures, job.attempt, job.worker_id) == (State.QUEUED, 0, 1, None)
    assert [again.id for again in hand.claim(pool, 2)] == [first.id, second.id]


def test_a_released_charge_is_given_back(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.release(claimed)
    row = Inbox.objects.get(running=-1)
    assert row.flow_vt == pytest.approx(-claimed.charged / client.weight)
    assert row.tier_vt == pytest.approx(-claimed.charged / client.tier.weight)


def test_the_charge_is_corrected_by_the_weight_at_which_it_was_charged(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    type(client).objects.update(weight=7)
    hand.settle(claimed, cost=claimed.charged + 10)
    assert Inbox.objects.get(running=-1).flow_vt == pytest.approx(10 / client.weight)


def test_two_hands_are_two_workers(hand: Hand, other: Hand):
    assert hand.worker != other.worker


@pytest.mark.parametrize(("outcome", "state"), [("interrupted", "cancelled"), ("completed", "completed")])
def test_a_cancel_wins_over_what_was_broken_off_and_not_over_an_answer_that_had_finished(
    hand, client, pool, outcome, state
):
    claimed = claimed_job(hand, client, pool, on_interrupt="keep")
    queue.cancel([claimed.id])
    hand.settle(claimed, outcome=outcome, output='{"choices": []}', output_text="Half")
    assert Job.objects.get().state == state
    result = JobResult.objects.get()
    assert result.output_text == "Half" and (result.output is None) == (state == "cancelled")
