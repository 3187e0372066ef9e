"""DELETE /api/jobs/{id}."""

import pytest
from django.utils import timezone

from llmjobs import webhooks
from llmjobs.models import Attempt, HandlerCall, Job, JobEvent, JobRequest, JobResult, WebhookDelivery
from llmjobs.representation import job_json
from llmjobs.states import TERMINAL, State
from tests.api.conftest import Api, assert_error
from tests.factories import make_job, make_key

pytestmark = pytest.mark.django_db

CANARY = "what nobody else shall read"


def ledger(job):
    """Its attempts, but for the words in which errors were told."""
    return [
        {name: value for name, value in row.items() if name not in ("error_message", "decision")}
        for row in Attempt.objects.filter(job=job).values()
    ]


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_a_finished_jobs_request_output_and_events_go_and_its_ledger_stays(api, acme, state):
    job = make_job(state, client=acme, request={"metadata": {"case": "42"}})
    attempts = ledger(job)

    response = api.delete(f"jobs/{job.public_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert not JobRequest.objects.filter(job=job).exists()
    for result in JobResult.objects.filter(job=job):
        assert (result.output, result.output_text, result.error_message) == (None, "", None)
    assert not JobEvent.objects.filter(job=job).exists()
    assert Job.objects.get(pk=job.pk).state == state
    assert ledger(job) == attempts


def test_no_word_stays_that_may_quote_what_was_asked_or_answered(api, acme):
    job = make_job(State.DEAD, client=acme, result={"error_code": "server_error", "error_message": CANARY})
    Attempt.objects.update(error_message=CANARY, decision=f"Failure 5 of 5: dead-lettered. server_error: {CANARY}")
    now = {"job": job, "epoch": job.epoch, "ended_at": timezone.now(), "error": CANARY}
    url = f"https://a.example/{CANARY}"
    WebhookDelivery.objects.create(**now, client=acme, type="job.dead", url=url, state="failed")
    HandlerCall.objects.create(**now, handler="a.b", state="dead")
    api.delete(f"jobs/{job.public_id}")

    assert Attempt.objects.get().decision == "Failure 5 of 5: dead-lettered. server_error"
    for table in (Job, JobResult, Attempt, WebhookDelivery, HandlerCall):
        assert CANARY not in str(list(table.objects.values())), table.__name__
    assert webhooks.redeliver([WebhookDelivery.objects.get().pk]) == [], "where to is gone, too"


def test_an_erased_job_s_key_answers_the_job_and_buys_no_other(api, acme):
    first = api.submit(headers={"Idempotency-Key": "k"}, metadata={"case": CANARY}).json()
    Job.objects.update(state="cancelled", finished_at=timezone.now())
    api.delete(f"jobs/{first['id']}")
    again = api.submit(headers={"Idempotency-Key": "k"}, metadata={"case": CANARY})

    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    assert CANARY not in again.content.decode()
    assert CANARY not in str(list(JobRequest.objects.values()))
    assert (again.json()["prompt_hash"], again.json()["idempotency_key"]) == (None, "k")


def test_an_end_that_is_still_to_be_told_is_told_without_what_was_erased(api, acme):
    job = make_job(State.COMPLETED, client=acme)
    WebhookDelivery.objects.create(
        job=job, epoch=job.epoch, client=acme, type="job.completed", url="https://a.example/"
    )
    api.delete(f"jobs/{job.public_id}")

    delivery = WebhookDelivery.objects.get()
    assert delivery.state == "pending"
    assert job_json(delivery.job)["output"] is None


def test_an_erased_job_is_shown_without_what_was_erased(api, acme):
    job = make_job(State.COMPLETED, client=acme)
    api.delete(f"jobs/{job.public_id}")

    shown = api.get(f"jobs/{job.public_id}").json()

    assert shown["status"] == "completed"
    assert (shown["output"], shown["output_text"], shown["metadata"], shown["prompt_hash"]) == (None, "", {}, None)
    assert [listed["id"] for listed in api.get("jobs").json()["data"]] == [shown["id"]]


def test_erasing_twice_is_erasing_once(api, acme):
    job = make_job(State.COMPLETED, client=acme)

    assert [api.delete(f"jobs/{job.public_id}").status_code for _ in range(2)] == [204, 204]


@pytest.mark.parametrize("state", sorted(set(State) - TERMINAL))
def test_a_job_that_is_not_over_is_not_erased(api, acme, state):
    job = make_job(state, client=acme)

    error = assert_error(api.delete(f"jobs/{job.public_id}"), 409, "not_allowed")

    assert state in error["message"]
    assert JobRequest.objects.filter(job=job).exists()


def test_nobody_erases_anothers_job(stranger, acme):
    job = make_job(State.COMPLETED, client=acme)

    assert_error(stranger.delete(f"jobs/{job.public_id}"), 404, "job_not_found", "id")
    assert JobRequest.objects.filter(job=job).exists()


def test_a_key_that_only_reads_erases_nothing(acme):
    job = make_job(State.COMPLETED, client=acme)

    assert_error(Api(make_key(acme, scopes=["read"])).delete(f"jobs/{job.public_id}"), 403, "insufficient_scope")
    assert JobRequest.objects.filter(job=job).exists()
