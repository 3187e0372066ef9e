"""Every fault that a provider can have: what becomes of the job, what the ledger keeps, and what is counted."""

from datetime import timedelta

import pytest

from llmjobs.models import Attempt, Job
from llmjobs.providers.simulator.faults import FAULTS
from llmjobs.states import State
from tests.hands import submit
from tests.worker.running import run_until_empty

pytestmark = pytest.mark.django_db(transaction=True)

# fault: (outcome of the attempt, state of the job if it happens only once, failures, error codes, status)
ONCE = {
    "context_length": ("deterministic", "failed", 1, {"context_length_exceeded"}, 400),
    "content_policy": ("deterministic", "failed", 1, {"content_policy_violation"}, 400),
    "invalid_request": ("deterministic", "failed", 1, {"invalid_value"}, 400),
    "not_found": ("deterministic", "failed", 1, {"model_not_found"}, 404),
    "unauthorized": ("provider_refused", "completed", 0, {"invalid_api_key"}, 401),
    "forbidden": ("provider_refused", "completed", 0, {"insufficient_permissions"}, 403),
    "insufficient_quota": ("provider_refused", "completed", 0, {"insufficient_quota"}, 429),
    "rate_limit": ("rejected", "completed", 0, {"rate_limit_exceeded"}, 429),
    "slow_down": ("rejected", "completed", 0, {"slow_down"}, 429),
    "overloaded": ("rejected", "completed", 1, {"server_is_overloaded"}, 503),
    "server_error": ("unknown", "completed", 1, {"server_error"}, 500),
    "bad_gateway": ("unknown", "completed", 1, {"502", "cf_bad_gateway"}, 502),
    "html": ("unknown", "completed", 1, {"http_502"}, 502),
    "refuse": ("unknown", "completed", 1, {"connection_lost"}, None),
    "reset": ("unknown", "completed", 1, {"connection_lost"}, None),
    "reset_midstream": ("unknown", "completed", 1, {"connection_lost"}, None),
    "truncate": ("unknown", "completed", 1, {"stream_truncated", "connection_lost"}, None),
    "malformed": ("unknown", "completed", 1, {"malformed_response"}, None),
    "stream_error": ("unknown", "completed", 1, {"server_error"}, None),
    "empty": ("unknown", "completed", 1, {"stream_truncated", "malformed_response"}, None),
    "stall": ("unknown", "completed", 1, {"timeout"}, None),
    "stall_midstream": ("unknown", "completed", 1, {"timeout"}, None),
    "slow_first_token": ("unknown", "completed", 1, {"timeout"}, None),
}


@pytest.fixture(autouse=True)
def impatient(settings, quick):
    settings.LLMJOBS_FIRST_TOKEN_TIMEOUT_S = 4.0  # of a machine that does other things beside
    settings.LLMJOBS_BETWEEN_TOKENS_TIMEOUT_S = 4.0


def asked(words, stream=True):
    body = {"messages": [{"role": "user", "content": words}]}
    return body if stream else body | {"stream": False}


def test_the_table_knows_every_fault_of_the_simulator():
    assert ONCE.keys() == FAULTS


def test_each_fault_ends_as_the_table_says(client, pool, simulator):
    """Side by side, each streamed and not: the fault on the first call of each job, and none after it."""
    jobs = {}
    for stream in (True, False):
        for fault in ONCE:
            if not stream and fault == "stream_error":
                continue  # there is no stream to be interrupted
            value = ":0" if fault in ("rate_limit", "slow_down", "overloaded") else ""
            body = asked(f"Hello {fault}. [[tokens=8]] [[fault={fault}:1{value}]]", stream)
            [jobs[fault, stream]] = submit(client, pool, body=body)
    run_until_empty()
    wrong = []
    for (fault, stream), job in jobs.items():
        outcome, state, failures, codes, status = ONCE[fault]
        job = Job.objects.select_related("result").get(pk=job.pk)
        # A call that a busy machine would send too late is handed back unsent: no answer of the provider's.
        attempts = list(Attempt.objects.filter(job=job).exclude(outcome="released", sent_at=None).order_by("number"))
        first = attempts[0]
        came = (first.outcome, job.state, job.failures, first.error_code, first.provider_status)
        if came[:3] != (outcome, state, failures) or first.error_code not in codes or first.provider_status != status:
            wrong.append((fault, stream, came, first.error_message))
        assert [attempt.outcome for attempt in attempts[1:]] == ["completed"] * (state == "completed"), fault
        if state == "failed":
            assert job.result.error_class == "deterministic" and job.result.error_code in codes
            assert (job.result.provider_status, job.result.error_attempt) == (status, 1)
        else:
            assert job.result.error_code is None and job.result.output_text, fault
    assert wrong == []


def test_what_was_streamed_before_a_break_is_counted_and_charged(client, pool, simulator):
    [job] = submit(client, pool, body=asked("Hello. [[tokens=20]] [[fault=reset_midstream::7]]"), max_attempts=1)
    run_until_empty()
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert job.state == State.DEAD
    attempt = Attempt.objects.get()
    assert (attempt.input_tokens, attempt.output_tokens) == (job.est_input_tokens, 7)
    assert attempt.cost == job.est_input_tokens + 4 * 7
    assert job.result.output_text and job.result.cost_usd > 0
    assert simulator.ledger()[0]["output_tokens"] == 7


def test_after_its_last_failure_a_job_is_dead_and_every_attempt_is_told(client, pool, simulator):
    [job] = submit(client, pool, body=asked("Hello. [[fault=server_error]]"), max_attempts=3)
    run_until_empty()
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert (job.state, job.failures, job.attempt) == (State.DEAD, 3, 3)
    assert job.result.error_class == "unknown" and job.result.provider_status == 500
    words = list(Attempt.objects.order_by("number").values_list("decision", flat=True))
    assert "failure 1 of 3" in words[0] and "Failure 3 of 3: dead-lettered" in words[2]
    calls = [call["client_request_id"] for call in simulator.ledger()]
    assert calls == [f"{job.public_id}.{number}" for number in (1, 2, 3)]


def test_a_deterministic_error_is_never_repeated(client, pool, simulator):
    submit(client, pool, body=asked("Hello. [[fault=context_length]]"), max_attempts=9)
    run_until_empty()
    assert len(simulator.ledger()) == 1


def test_a_rate_limit_counts_no_failure_however_often(client, pool, simulator):
    [job] = submit(client, pool, body=asked("Hello. [[tokens=3]] [[fault=rate_limit:4:0]]"), max_attempts=1)
    run_until_empty()
    job.refresh_from_db()
    assert (job.state, job.failures, job.attempt) == (State.COMPLETED, 0, 5)


def test_retry_after_is_obeyed(client, pool, simulator):
    submit(client, pool, body=asked("Hello. [[tokens=3]] [[fault=rate_limit:1:1]]"))
    run_until_empty()
    refused, answered = simulator.ledger()
    assert answered["started_at"] - refused["started_at"] >= 1


def test_money_bounds_the_repetition_of_what_may_have_been_billed(client, pool, simulator):
    """Each lost attempt costs some 4 x 10 millionths of a dollar; twice that is allowed."""
    body = asked("Hello. [[tokens=20]] [[fault=reset_midstream::10]]")
    [job] = submit(client, pool, body=body, max_attempts=20, max_cost_usd=0.0001)
    run_until_empty()
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert job.state == State.DEAD and "at most $0.0001" in Attempt.objects.latest("number").decision
    assert job.attempt == 2
    assert 0.0001 <= job.result.cost_usd < 0.00015


def test_the_time_for_retries_bounds_them_all(client, pool, simulator):
    [job] = submit(client, pool, body=asked("Hello. [[fault=rate_limit::1]]"), retry_for_s=0.5)
    run_until_empty()
    job.refresh_from_db()
    assert (job.state, job.failures) == (State.DEAD, 0)
    assert "retry_for_s" in Attempt.objects.latest("number").decision


def test_a_job_s_own_timeout_ends_its_call(client, pool, simulator, settings):
    settings.LLMJOBS_FIRST_TOKEN_TIMEOUT_S = settings.LLMJOBS_BETWEEN_TOKENS_TIMEOUT_S = 10
    body = asked("Hello. [[tokens=100]] [[tokens_per_s=20]]")
    submit(client, pool, body=body, timeout_s=0.5, max_attempts=1)
    run_until_empty()
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.error_code) == ("unknown", "timeout")
    assert "whole answer within 0.5 s" in attempt.error_message
    assert attempt.ended_at - attempt.sent_at < timedelta(seconds=2)
    assert 0 < attempt.output_tokens < 100
