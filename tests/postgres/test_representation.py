"""A job as the contract shows it: each field from where it is kept, in a number of queries that does not grow."""

import json
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmjobs import places, queue
from llmjobs.models import Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.representation import job_json, jobs_json, time_json
from llmjobs.states import State
from llmjobs.stats import queue_stats
from tests.factories import make_client, make_job
from tests.hands import claimed_job, submit

pytestmark = pytest.mark.django_db(transaction=True)

# The contract's object, key by key.
KEYS = {
    "id", "object", "status", "client", "tier", "endpoint", "model", "priority", "size", "metadata", "idempotency_key",
    "prompt_hash", "estimate", "position", "eta_s", "blocked_by", "attempt", "failures", "max_attempts", "timeout_s",
    "created_at", "available_at", "expires_at", "started_at", "finished_at", "output", "output_text", "usage",
    "cost_usd", "error", "links",
}  # fmt: skip


def shown(job_id):
    return job_json(Job.objects.select_related(*JOB_RELATED).get(pk=job_id), base_url="https://host")


def test_a_queued_job_is_shown_with_every_field_of_the_contract(client, pool):
    [job] = submit(client, pool, priority="high", metadata={"k": "v"}, expires_in_s=60)
    view = shown(job.id)
    assert view.keys() >= KEYS
    assert (view["id"], view["object"], view["status"]) == (str(job.public_id), "job", "queued")
    assert (view["client"], view["tier"], view["model"], view["priority"], view["size"]) == (
        "acme", "enterprise", "model", "high", "short",
    )  # fmt: skip
    assert view["estimate"] == {"input_tokens": job.est_input_tokens, "output_tokens": job.est_output_tokens}
    assert (view["position"], view["metadata"], view["attempt"], view["failures"]) == (0, {"k": "v"}, 0, 0)
    assert (view["output"], view["output_text"], view["usage"], view["cost_usd"], view["error"]) == (
        None,
        "",
        None,
        None,
        None,
    )
    path = f"/api/jobs/{job.public_id}"
    assert view["links"] == {
        "self": f"https://host{path}",
        "events": f"https://host{path}/events",
        "websocket": f"wss://host/ws/jobs/{job.public_id}/",
        "cancel": f"https://host{path}/cancel",
    }


def test_a_running_job_shows_its_text_so_far(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    assert shown(claimed.id)["output_text"] == ""
    hand.say(claimed, "Hel", n=1)
    hand.say(claimed, "lo", n=2)
    view = shown(claimed.id)
    assert (view["status"], view["output_text"], view["output"], view["position"]) == ("running", "Hello", None, None)


def test_a_second_attempt_does_not_show_the_text_of_the_first(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.say(claimed, "old")
    hand.settle(claimed, state=State.SCHEDULED)
    hand.stage()
    [again] = hand.claim(pool)
    assert shown(again.id)["output_text"] == ""
    hand.say(again, "new")
    assert shown(again.id)["output_text"] == "new"


def test_an_answer_is_shown_as_the_provider_gave_it(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    output = {"zeta": 1, "choices": [{"message": {"content": "hi"}}], "alpha": 2}
    usage = {"prompt_tokens": 3}
    hand.settle(claimed, output=json.dumps(output), output_text="hi", usage=usage, cost_usd="0.00000100")
    view = shown(claimed.id)
    assert view["output"] == output and list(view["output"]) == ["zeta", "choices", "alpha"]
    assert (view["output_text"], view["usage"], view["cost_usd"], view["error"]) == ("hi", usage, 0.000001, None)
    assert view["finished_at"].endswith("Z")


def test_an_error_is_shown_with_its_class_and_attempt(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    hand.settle(
        claimed, state=State.FAILED, error_code="context_length_exceeded", error_message="long",
        error_class="deterministic", provider_status=400,
    )  # fmt: skip
    assert shown(claimed.id)["error"] == {
        "code": "context_length_exceeded",
        "message": "long",
        "class": "deterministic",
        "provider_status": 400,
        "attempt": 1,
    }


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_shown_and_said_in_json(hand, client, pool, state):
    job = make_job(state, client=client, model=pool)
    view = shown(job.id)
    assert view["status"] == state
    json.dumps(view, allow_nan=False)


def test_an_erased_job_can_still_be_shown(hand, client, pool):
    claimed = claimed_job(hand, client, pool, metadata={"k": "v"})
    hand.settle(claimed, output="{}")
    queue.erase(claimed.id)
    view = shown(claimed.id)
    assert (view["status"], view["output"], view["output_text"], view["metadata"]) == ("completed", None, "", {})


def test_many_jobs_are_shown_in_as_many_queries_as_few(hand, client, pool, monkeypatch):
    monkeypatch.setattr(places, "KEPT_S", 60.0)  # the next starts are asked for once for all pages

    def queries(count):
        jobs = list(Job.objects.select_related(*JOB_RELATED).order_by("id")[:count])
        with CaptureQueriesContext(connection) as captured:
            jobs_json(jobs)
        return len(captured)

    submit(client, pool, 30)
    hand.claim(pool, 10)
    queries(30)
    assert queries(30) == queries(11) <= 3


def test_times_are_in_utc_with_milliseconds():
    assert time_json(datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)) == "2026-01-02T03:04:05.678Z"
    assert time_json(None) is None


def test_statistics_count_by_everything_that_the_contract_names(hand, client, pool):
    other = make_client("other", tier="free")
    submit(client, pool, 3, priority="high")
    submit(other, pool, 2)
    hand.settle(*hand.claim(pool, 2))
    stats = queue_stats()
    assert (stats["total"], stats["queued"], stats["running"]) == (5, 3, 0)
    assert (stats["enqueued_total"], stats["dequeued_total"]) == (5, 2)
    assert stats["by_status"] == {state.value: 0 for state in State} | {"queued": 3, "completed": 2}
    assert stats["by_client"] == {"acme": 3, "other": 2} and stats["by_tier"] == {"enterprise": 3, "free": 2}
    assert stats["by_priority"] == {"high": 3, "normal": 2}
    assert sum(stats["pending_by_priority"].values()) == 3
    assert stats["wait_s"]["p50"] is not None and stats["wait_s"]["p95"] >= stats["wait_s"]["p50"] >= 0
    assert stats["oldest_queued_s"] >= 0


def test_a_client_s_statistics_are_its_own(client, pool):
    other = make_client("other", tier="free")
    submit(client, pool, 3)
    submit(other, pool, 2)
    assert queue_stats([other.id])["by_client"] == {"other": 2}
    assert queue_stats([other.id])["total"] == 2


def test_of_nothing_the_statistics_are_zero():
    stats = queue_stats()
    assert (stats["total"], stats["wait_s"], stats["oldest_queued_s"]) == (0, {"p50": None, "p95": None}, None)


def test_dequeued_is_what_does_not_wait(hand, client, pool):
    claimed = claimed_job(hand, client, pool)
    submit(client, pool)
    submit(client, pool, delay_s=60)
    assert queue_stats()["dequeued_total"] == 1
    hand.settle(claimed, state=State.DEAD)
    assert queue_stats()["dequeued_total"] == 1
