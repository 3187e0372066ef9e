"""Reclaim: what dead workers hold is taken back, once, and counted as a failure."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.events import Event, append
from llmjobs.models import Attempt, Job, JobEvent, JobResult, Model, Provider, Worker
from llmjobs.states import State
from tests.hands import claimed_job, submit
from tests.properties.ground import check_identity

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def short_lease(settings):
    """Shorter than the test server has been up: within a lease of its start nobody reclaims."""
    settings.LLMJOBS_LEASE_S = 0.5
    settings.LLMJOBS_BACKOFF_BASE_S = 0.01
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp() - pg_postmaster_start_time() > interval '0.5 s'")
        assert cursor.fetchone() == (True,)


def die(hand, ago_s=3600.0):
    Worker.objects.filter(id=hand.worker).update(heartbeat_at=timezone.now() - timedelta(seconds=ago_s))


def test_what_a_dead_worker_holds_is_taken_back(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    die(hand)
    assert [wake.job_id for wake in other.reclaim()] == [claimed.id]
    job = Job.objects.get()
    assert (job.state, job.failures, job.worker_id, job.epoch) == (State.SCHEDULED, 1, None, 3)
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.error_code, attempt.cost) == ("lost", "lease_lost", attempt.charged)
    assert attempt.ended_at is not None and "tried again" in attempt.decision
    assert other.reclaim() == []


def test_what_a_worker_without_a_row_holds_is_taken_back(hand, other, client, pool):
    claimed_job(hand, client, pool)
    Worker.objects.filter(id=hand.worker).delete()
    assert len(other.reclaim()) == 1


def live(hand):
    """However slow this machine is: half a second may pass before the next statement."""
    die(hand, ago_s=-60)


def test_what_a_living_worker_holds_is_left_alone(hand, other, client, pool, settings):
    settings.LLMJOBS_LEASE_S = 5  # it does not beat here, and the test may be slow
    claimed_job(hand, client, pool)
    live(hand)
    assert other.reclaim() == []
    assert Job.objects.get().state == State.RUNNING


def test_a_heartbeat_within_the_lease_keeps_it(hand, other, client, pool, settings):
    settings.LLMJOBS_LEASE_S = 4
    claimed_job(hand, client, pool)
    die(hand, ago_s=1)
    assert other.reclaim() == []
    die(hand, ago_s=4.5)
    assert len(other.reclaim()) == 1


def test_a_job_past_its_timeout_is_taken_back_whatever_its_worker_s_heartbeat_says(hand, other, client, pool, settings):
    settings.LLMJOBS_RECLAIM_GRACE_S = 10
    claimed_job(hand, client, pool, timeout_s=20)
    live(hand)
    Job.objects.update(started_at=timezone.now() - timedelta(seconds=29))
    assert other.reclaim() == []
    Job.objects.update(started_at=timezone.now() - timedelta(seconds=31))
    assert len(other.reclaim()) == 1


def test_nobody_reclaims_within_a_lease_of_the_server_s_start(hand, other, client, pool, settings):
    """After an outage every lease looks lost; its workers still run the calls, and come back."""
    claimed_job(hand, client, pool)
    Worker.objects.filter(id=hand.worker).delete()
    settings.LLMJOBS_LEASE_S = 100 * 365 * 86_400.0
    assert other.reclaim() == []
    settings.LLMJOBS_LEASE_S = 0.5
    assert len(other.reclaim()) == 1


def test_the_last_lost_lease_is_the_end(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool, max_attempts=1)
    die(hand)
    other.reclaim()
    job = Job.objects.get()
    assert (job.state, job.failures) == (State.DEAD, 1) and job.finished_at is not None
    assert JobEvent.objects.latest("seq").data == {"status": "dead"}
    assert "dead-lettered" in Attempt.objects.get(job_id=claimed.id).decision


def test_a_job_whose_time_for_retries_is_over_ends(hand, other, client, pool):
    claimed_job(hand, client, pool)
    Job.objects.update(retry_until=timezone.now() - timedelta(seconds=1))
    die(hand)
    other.reclaim()
    assert Job.objects.get().state == State.DEAD


def test_a_lost_lease_with_a_cancel_asked_for_ends_cancelled(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    queue.cancel([claimed.id])
    die(hand)
    other.reclaim()
    assert Job.objects.get().state == State.CANCELLED


def test_the_text_that_was_streamed_stays_readable(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "Hel", n=1)
    hand.say(claimed, "lo", n=2)
    die(hand)
    other.reclaim()
    result = JobResult.objects.get()
    assert (result.output_text, result.error_code, result.error_attempt) == ("Hello", "lease_lost", 1)


def test_the_text_of_an_attempt_before_is_not_mixed_in(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "old")
    hand.settle(claimed, state=State.SCHEDULED)
    hand.stage()
    [again] = hand.claim(pool)
    hand.say(again, "new")
    die(hand)
    other.reclaim()
    assert JobResult.objects.get().output_text == "new"


def test_what_a_stale_worker_still_says_is_dropped(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    die(hand)
    other.reclaim()
    hand.say(claimed, "late")
    assert not JobEvent.objects.filter(type="delta").exists()


def test_what_is_said_of_an_attempt_before_is_dropped_though_the_same_worker_has_the_next(hand, client, pool):
    before = claimed_job(hand, client, pool)
    hand.release(before)
    [claimed] = hand.claim(pool)
    hand.say(before, "late")
    hand.say(claimed, "now")
    assert [event.data["text"] for event in JobEvent.objects.filter(type="delta")] == ["now"]


def test_what_another_worker_says_of_an_attempt_of_the_same_number_is_dropped(hand, other, client, pool):
    """A failover may give an attempt's number twice: the worker is part of the lease."""
    claimed = claimed_job(hand, client, pool)
    other.say(claimed, "not mine")
    assert not JobEvent.objects.filter(type="delta").exists()


def test_what_was_said_is_kept_when_it_is_sent_again(hand, client, pool):
    """A tick whose acknowledgement was lost is sent again, with what has come since."""
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "once")
    hand.say(claimed, "twice")
    assert [event.data["text"] for event in JobEvent.objects.filter(type="delta")] == ["once"]


def test_a_reclaimed_job_runs_again_and_its_place_is_kept(hand, other, client, pool):
    first, second = submit(client, pool, 2)
    hand.claim(pool)
    die(hand)
    other.reclaim()
    Job.objects.filter(id=first.id).update(available_at=timezone.now())
    other.stage()
    assert [claimed.id for claimed in other.claim(pool, 2)] == [first.id, second.id]


def test_a_job_that_somebody_settles_just_now_is_not_waited_for(hand, other, client, pool):
    claimed_job(hand, client, pool)
    die(hand)
    with transaction.atomic():
        list(Job.objects.select_for_update())
        assert other.reclaim() == []


def test_reclaims_are_bounded(hand, other, client, pool, monkeypatch):
    monkeypatch.setattr(queue, "DUTY_ROWS", 2)
    submit(client, pool, 5)
    hand.claim(pool, 5)
    die(hand)
    assert [len(other.reclaim()) for _ in range(4)] == [2, 2, 1, 0]


def test_a_lost_place_is_free_for_the_client_again(hand, other, pool, client):
    type(client).objects.update(max_running=1)
    submit(client, pool, 2)
    hand.claim(pool)
    assert other.claim(pool) == []
    die(hand)
    other.reclaim()
    assert len(other.claim(pool)) == 1


# What the log has of an answer is not bought again.


def whole(claimed, finish_reason="stop", output_tokens=7):
    """The end of a chat stream's text, as a worker logs it before the stream's own end."""
    data = {"text": "", "finish_reason": finish_reason, "output_tokens": output_tokens}
    return Event(claimed.id, claimed.attempt, (claimed.epoch << 20) + 9, "delta", data)


def test_an_answer_whose_text_was_all_there_is_settled_from_the_log(hand, other, client, pool):
    Model.objects.update(input_usd_per_mtok=1, output_usd_per_mtok=2)
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "Hello ", n=1)
    hand.say(claimed, "there.", n=2)
    hand.run(append(hand.connection, [whole(claimed)], worker=hand.worker))
    queue.cancel([claimed.id])
    die(hand)
    other.reclaim()
    job, attempt, result = Job.objects.get(), Attempt.objects.get(), JobResult.objects.get()
    assert (job.state, job.failures) == (State.COMPLETED, 0), "an answer that had finished wins over a cancel"
    assert (attempt.outcome, attempt.output_tokens) == ("completed", 7)
    assert "without another call" in attempt.decision
    assert attempt.cost_usd == (attempt.input_tokens + 2 * 7) / Decimal(1_000_000) == result.cost_usd
    assert (result.output_text, result.error_code) == ("Hello there.", None)
    output = json.loads(result.output)
    assert list(output)[:5] == ["id", "object", "created", "model", "choices"]
    [choice] = output["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello there.", "stop")
    assert output["usage"]["completion_tokens"] == 7 == result.usage["completion_tokens"]
    assert JobEvent.objects.latest("seq").type == "done"
    hand.fold()
    check_identity()


def test_an_empty_answer_that_was_whole_is_priced_too(hand, other, client, pool):
    Model.objects.update(input_usd_per_mtok=1, output_usd_per_mtok=2)
    claimed = claimed_job(hand, client, pool)
    hand.run(append(hand.connection, [whole(claimed, output_tokens=0)], worker=hand.worker))
    die(hand)
    other.reclaim()
    result = JobResult.objects.get()
    assert result.cost_usd == claimed.est_input_tokens / Decimal(1_000_000)
    assert result.usage["total_tokens"] == claimed.est_input_tokens


def test_a_stale_worker_whose_answer_was_settled_from_the_log_has_lost_its_lease(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.run(append(hand.connection, [whole(claimed)], worker=hand.worker))
    die(hand)
    other.reclaim()
    assert hand.settle(claimed) == {}


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_a_job_that_keeps_what_had_come_ends_with_it(hand, other, client, pool, endpoint):
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in endpoint else {"input": "Hi"}
    claimed = claimed_job(hand, client, pool, body=asked, on_interrupt="keep")
    hand.say(claimed, "Half of")
    die(hand)
    other.reclaim()
    job, attempt, result = Job.objects.get(), Attempt.objects.get(), JobResult.objects.get()
    assert (job.state, job.failures, attempt.outcome) == (State.COMPLETED, 0, "interrupted")
    assert (result.output_text, result.error_code) == ("Half of", None)
    output = json.loads(result.output)
    if "chat" in endpoint:
        assert output["choices"][0]["finish_reason"] == "interrupted"
    else:
        assert output["incomplete_details"] == {"reason": "interrupted"}
        assert output["output"][0]["content"][0]["text"] == "Half of"


def test_a_job_that_keeps_what_had_come_and_was_to_be_cancelled_ends_cancelled(hand, other, client, pool):
    claimed = claimed_job(hand, client, pool, on_interrupt="keep")
    hand.say(claimed, "Half of")
    queue.cancel([claimed.id])
    die(hand)
    other.reclaim()
    assert (Job.objects.get().state, JobResult.objects.get().output_text) == (State.CANCELLED, "Half of")


def test_a_job_that_keeps_what_had_come_starts_over_where_nothing_had(hand, other, client, pool):
    claimed_job(hand, client, pool, on_interrupt="keep")
    die(hand)
    other.reclaim()
    assert Job.objects.get().state == State.SCHEDULED


def test_what_a_lost_attempt_streamed_is_priced_and_bounded(hand, other, client, pool):
    Model.objects.update(input_usd_per_mtok=1, output_usd_per_mtok=4)
    claimed = claimed_job(hand, client, pool, max_cost_usd=0.00002)
    hand.say(claimed, "x" * 40)
    die(hand)
    other.reclaim()
    attempt = Attempt.objects.get()
    assert (attempt.input_tokens, attempt.output_tokens) == (claimed.est_input_tokens, 10)
    assert attempt.cost_usd == (claimed.est_input_tokens + 4 * 10) / Decimal(1_000_000)
    assert attempt.cost == claimed.est_input_tokens + 4 * 10
    assert Job.objects.get().state == State.DEAD and "max_cost_usd" in attempt.decision
    hand.fold()
    check_identity()


def test_a_response_that_goes_on_at_the_provider_costs_the_lost_attempt_nothing_and_is_picked_up(
    hand, other, client, pool
):
    Provider.objects.update(has_background=True)
    claimed = claimed_job(hand, client, pool, body={"input": "Hi"}, on_interrupt="keep")
    assert (claimed.has_background, claimed.resume_id) == (True, None)
    Attempt.objects.update(provider_response_id="resp_1")
    hand.say(claimed, "Half of")
    die(hand)
    other.reclaim()
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.cost, attempt.output_tokens) == ("lost", 0, 0)
    assert "picked up" in attempt.decision
    Job.objects.update(available_at=timezone.now())
    other.stage()
    [again] = other.claim(pool)
    assert again.resume_id == "resp_1"
    Job.objects.filter(id=again.id).update(endpoint="/v1/chat/completions")
    other.release(again)
    [chat] = other.claim(pool)
    assert chat.resume_id is None, "that endpoint has no background"


def test_a_response_in_the_background_that_nobody_will_pick_up_is_priced_as_streamed(hand, other, client, pool):
    Provider.objects.update(has_background=True)
    claimed = claimed_job(hand, client, pool, body={"input": "Hi"})
    Attempt.objects.update(provider_response_id="resp_1")
    hand.say(claimed, "x" * 40)
    queue.cancel([claimed.id])
    die(hand)
    other.reclaim()
    attempt = Attempt.objects.get()
    assert (Job.objects.get().state, attempt.output_tokens) == (State.CANCELLED, 10)
    assert attempt.cost == claimed.est_input_tokens + 10
