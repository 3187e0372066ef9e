"""The checker has teeth: each law is broken by hand once, and says so; what the verbs leave breaks none."""

from datetime import timedelta

import pytest
from django.utils import timezone

from llmjobs.models import Attempt, BucketTurn, Job, JobCountChange, JobEvent, WebhookDelivery, Worker
from llmjobs.states import State
from tests.chaos import invariants
from tests.chaos.invariants import Evidence
from tests.chaos.receiver import Heard
from tests.chaos.viewers import View
from tests.factories import make_client, make_job, make_model, make_worker
from tests.hands import hands, submit

pytestmark = pytest.mark.django_db


def call_of(job, number=1, outcome="completed"):
    request_id = f"{job.public_id}.{number}"
    return {"client_request_id": request_id, "outcome": outcome, "input_tokens": 8, "output_tokens": 3}


def add_attempt(job, number, outcome):
    first = Attempt.objects.filter(job=job).values().first()
    Job.objects.filter(pk=job.pk).update(attempt=number)
    return Attempt.objects.create(**first | {"id": None, "number": number, "outcome": outcome})


def said(law, evidence):
    return " · ".join(law(evidence))


@pytest.fixture
def job(db):
    return make_job(State.COMPLETED)


@pytest.fixture
def told(job):
    """A completed job with a webhook, whose end was delivered."""
    Job.objects.filter(pk=job.pk).update(has_webhook=True)
    WebhookDelivery.objects.create(
        job=job, client=job.client, epoch=job.epoch, type="job.completed", url="http://receiver/", state="delivered",
        ended_at=timezone.now(),
    )  # fmt: skip
    heard = Heard()
    heard.ids["msg_1"] += 1
    heard.jobs["msg_1"] = str(job.public_id)
    return heard


def test_an_accepted_job_that_is_gone_or_has_not_ended_is_lost(job):
    waiting, gone = make_job(State.QUEUED), "0197-gone"
    accepted = [str(job.public_id), str(waiting.public_id), gone]

    found = list(invariants.lost_jobs(Evidence(accepted, [])))

    assert [sentence.split()[1] for sentence in found] == [str(waiting.public_id), gone]


def test_a_job_that_nobody_acknowledged_must_end_too(job):
    waiting = make_job(State.QUEUED)

    assert str(waiting.public_id) in said(invariants.lost_jobs, Evidence([str(job.public_id)], []))


@pytest.mark.parametrize("outcome", ["completed", "deterministic", "cancelled"])
def test_a_call_after_an_attempt_that_was_no_reason_to_repeat_it_is_unexplained(job, outcome):
    Attempt.objects.filter(job=job).update(outcome=outcome)
    add_attempt(job, 2, "completed")

    assert outcome in said(invariants.unexplained_repeats, Evidence([], [call_of(job), call_of(job, 2)]))


@pytest.mark.parametrize("outcome", invariants.CAUSES)
def test_a_call_after_a_named_cause_is_explained_but_where_nothing_may_be_repeated(job, outcome):
    Attempt.objects.filter(job=job).update(outcome=outcome)
    add_attempt(job, 2, "completed")
    calls = [call_of(job), call_of(job, 2)]

    assert said(invariants.unexplained_repeats, Evidence([], calls)) == ""
    assert said(invariants.unexplained_repeats, Evidence([], calls, may_repeat=False)) != ""


def test_a_job_that_was_completed_twice_or_never_or_has_an_open_attempt_is_found(job):
    assert said(invariants.one_settled_attempt, Evidence([], [])) == ""
    add_attempt(job, 2, "completed")
    never, is_open = make_job(State.COMPLETED), make_job(State.COMPLETED)
    Attempt.objects.filter(job=never).update(outcome="lost")
    Attempt.objects.filter(job=is_open).update(outcome=None, ended_at=None)

    found = said(invariants.one_settled_attempt, Evidence([], []))

    assert all(str(one.public_id) in found for one in (job, never, is_open))


def test_a_call_that_is_no_attempt_and_one_that_was_made_twice_are_found(job):
    assert said(invariants.calls_are_attempts, Evidence([], [call_of(job)])) == ""
    assert "no attempt" in said(invariants.calls_are_attempts, Evidence([], [call_of(job, 2)]))
    assert "2 times" in said(invariants.calls_are_attempts, Evidence([], [call_of(job)] * 2))


def test_only_an_attempt_that_died_before_its_send_may_have_no_call(job):
    assert said(invariants.attempts_are_calls, Evidence([], [call_of(job)])) == ""
    assert "never saw it" in said(invariants.attempts_are_calls, Evidence([], []))
    Attempt.objects.update(outcome="unknown", error_code="connection_lost")
    assert "never saw it" in said(invariants.attempts_are_calls, Evidence([], []))
    assert said(invariants.attempts_are_calls, Evidence([], [], was_away=True)) == ""
    Attempt.objects.update(outcome="lost")
    assert said(invariants.attempts_are_calls, Evidence([], [])) == ""


def test_a_completed_attempt_that_says_other_tokens_than_the_provider_is_found(job):
    assert said(invariants.usage_is_the_providers, Evidence([], [call_of(job)])) == ""
    Attempt.objects.update(output_tokens=4)
    assert "(8, 4)" in said(invariants.usage_is_the_providers, Evidence([], [call_of(job)]))


def test_a_running_job_needs_a_worker_that_beats():
    alive = make_worker()
    make_job(State.RUNNING, worker_id=alive.id)
    assert said(invariants.leases_are_alive, Evidence([], [])) == ""
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert str(alive.id) in said(invariants.leases_are_alive, Evidence([], []))


@pytest.mark.parametrize("change", ["missing", "twice", "out of order", "invented"])
def test_a_viewer_that_saw_other_than_the_log_is_found(job, change):
    log = list(JobEvent.objects.filter(job=job).order_by("seq").values_list("seq", "type"))
    seen = {
        "missing": [log[0], *log[2:]],
        "twice": [log[0], *log],
        "out of order": [log[1], log[0], *log[2:]],
        "invented": [*log, (log[-1][0] + 1, "delta")],
    }[change]

    whole, other = View(str(job.public_id), "ws", log), View(str(job.public_id), "sse", seen)

    assert said(invariants.viewers_saw_the_log, Evidence([], [], [whole])) == ""
    assert str(job.public_id) in said(invariants.viewers_saw_the_log, Evidence([], [], [other]))


def test_an_end_that_was_told_once_breaks_nothing(told):
    assert said(invariants.ends_are_told, Evidence([], [], heard=told)) == ""
    told.ids["msg_1"] += 1
    assert said(invariants.ends_are_told, Evidence([], [], heard=told)) == "", "at least once"


def test_an_end_that_nobody_heard_of_or_that_has_no_row_is_found(told):
    assert "heard 0 times" in said(invariants.ends_are_told, Evidence([], [], heard=Heard()))
    WebhookDelivery.objects.all().delete()
    assert "0 deliveries" in said(invariants.ends_are_told, Evidence([], [], heard=told))


def test_an_end_under_two_ids_a_wrong_signature_and_a_followed_redirect_are_found(told):
    told.jobs["msg_2"] = told.jobs["msg_1"]
    told.wrong.append("msg_1: no signature of it is right")
    told.trapped += 1

    found = said(invariants.ends_are_told, Evidence([], [], heard=told))

    assert all(words in found for words in ("2 ids", "no signature", "redirect"))


@pytest.mark.django_db(transaction=True)
def test_what_the_verbs_leave_adds_up_and_a_count_an_end_or_a_request_that_is_missing_is_found():
    pool = make_model()
    with hands(1) as [hand]:
        submit(make_client(tier="enterprise"), pool, 3)
        hand.settle(*hand.claim(pool, 2), cost=5.0)
    evidence = Evidence([], [])
    assert said(invariants.sums_add_up, evidence) == said(invariants.buckets_add_up, evidence) == ""

    BucketTurn.objects.filter(kind=0).update(requests=7)
    assert "'requests': 7" in said(invariants.buckets_add_up, evidence)
    Attempt.objects.update(cost=6.0)
    assert "check_identity" in said(invariants.sums_add_up, evidence)
    JobCountChange.objects.filter(state="completed").delete()
    assert "counts" in said(invariants.sums_add_up, evidence)
