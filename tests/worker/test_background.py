"""Responses that go on at the provider: picked up by whoever comes after, paid once, stopped when nobody wants them."""

import json
import signal
from typing import Any

import pytest

from llmjobs import queue
from llmjobs.models import Attempt, Job, JobResult, Model
from llmjobs.sql import load
from llmjobs.states import Endpoint, State
from llmjobs.testing import SimulatorProcess
from tests.hands import hands, submit
from tests.helpers import eventually
from tests.worker.running import log_of, reaches, run_until_empty, streams, working
from tests.worker_process import WorkerProcess, worker_process

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pool(pool: Model) -> Model:
    pool.provider.has_background = True
    pool.provider.save()
    return pool


def ask(client: Any, pool: Model, words: str, **body: Any) -> Job:
    [job] = submit(client, pool, endpoint=Endpoint.RESPONSES, body={"input": words} | body)
    return job


def is_known(job: Job) -> str:
    """The id under which the job's response is found again, once it is in the database."""

    def look() -> str:
        id = Attempt.objects.filter(job=job).values_list("provider_response_id", flat=True).last()
        assert id is not None, "no id yet"
        return id

    return eventually(look, within_s=40)  # with a process that starts before


def attempts_of(job: Job) -> list[Attempt]:
    return list(Attempt.objects.filter(job=job).order_by("number"))


def what_came_back(simulator: SimulatorProcess) -> list[str]:
    return [resume["what"] for resume in simulator.resumes()]


def text_of(job: Job) -> str:
    """What a viewer ends with, who drops the text at every reset."""
    text = ""
    for kind, said in log_of(job):
        text = "" if kind == "reset" else text + said if kind == "delta" else text
    return text


def killed(worker: WorkerProcess, job: Job) -> str:
    """The id of its response, whose worker is dead."""
    id = is_known(job)
    streams(job)
    worker.signal(signal.SIGKILL)
    return id


def test_a_response_whose_worker_was_killed_is_picked_up_and_paid_once(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=90]] [[tokens_per_s=20]]")
    with worker_process() as first:
        id = killed(first, job)
    with worker_process("--until-empty") as second:
        assert second.ended() == 0, second.output()

    [call] = simulator.ledger()
    assert (call["outcome"], call["output_tokens"]) == ("completed", 90), "one generation, which nobody disturbed"
    lost, completed = attempts_of(job)
    assert (lost.outcome, lost.cost_usd, lost.cost) == ("lost", 0, 0)
    assert (completed.outcome, completed.input_tokens, completed.output_tokens) == (
        "completed",
        call["input_tokens"],
        90,
    )
    assert {lost.provider_response_id, completed.provider_response_id} == {id}
    result = JobResult.objects.get(job=job)
    assert result.cost_usd == completed.cost_usd > 0
    assert result.output_text == text_of(job) and len(result.output_text) > 0
    [look, *_] = simulator.resumes()
    assert look["client_request_id"] == f"{job.public_id}.2"


def test_a_response_that_the_provider_has_forgotten_is_made_anew(client, pool, simulator):
    with hands(2) as (before, _):
        job = ask(client, pool, "Hello. [[tokens=5]]")
        [claimed] = before.claim(pool)
        Attempt.objects.filter(job=job).update(provider_response_id="resp_of_an_hour_ago")
        before.release(claimed)
    run_until_empty()
    released, completed = attempts_of(job)
    assert (released.outcome, completed.outcome) == ("released", "completed")
    [call] = simulator.ledger()
    assert what_came_back(simulator) == ["get"]
    assert completed.provider_response_id == f"resp_{call['request_id'].removeprefix('req_')}"


def test_a_drain_leaves_the_response_alone_and_the_next_worker_picks_it_up(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=60]] [[tokens_per_s=40]]")
    with working():
        streams(job)
        is_known(job)
    reaches(job, State.QUEUED)
    run_until_empty()
    released, completed = attempts_of(job)
    assert (released.outcome, released.output_tokens, released.cost_usd) == ("released", 0, 0)
    assert (completed.outcome, completed.output_tokens) == ("completed", 60)
    assert len(simulator.ledger()) == 1 and "cancel" not in what_came_back(simulator)
    assert text_of(job) == JobResult.objects.get(job=job).output_text


def test_a_cancel_stops_the_generation_and_costs_what_it_said(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=400]] [[tokens_per_s=40]]")
    with working():
        streams(job)
        is_known(job)
        queue.cancel([job.pk])

        def is_stopped() -> dict[str, Any]:
            [call] = simulator.ledger()
            assert call["outcome"] == "cancelled", call
            return call

        call = eventually(is_stopped)
        reaches(job, State.CANCELLED)
    [attempt] = attempts_of(job)
    assert (attempt.outcome, attempt.output_tokens) == ("cancelled", call["output_tokens"])
    assert text_of(job) and JobResult.objects.get(job=job).output_text == text_of(job)


def test_a_time_out_stops_the_generation_and_the_next_attempt_makes_another(client, pool, simulator):
    [job] = submit(
        client, pool, endpoint=Endpoint.RESPONSES, body={"input": "[[tokens=400]] [[tokens_per_s=40]]"},
        timeout_s=1, max_attempts=2,
    )  # fmt: skip
    run_until_empty()
    assert [attempt.error_code for attempt in attempts_of(job)] == ["timeout", "timeout"]
    assert [call["outcome"] for call in simulator.ledger()] == ["cancelled", "cancelled"]
    assert [attempt.output_tokens for attempt in attempts_of(job)] == [
        call["output_tokens"] for call in simulator.ledger()
    ]


@pytest.mark.parametrize("fault", ["reset_midstream:1:5", "truncate:1:5"])
def test_a_stream_that_breaks_goes_on_in_the_same_attempt(fault, client, pool, simulator):
    job = ask(client, pool, f"Hello. [[tokens=30]] [[tokens_per_s=60]] [[fault={fault}]]")
    run_until_empty()
    [attempt] = attempts_of(job)
    [call] = simulator.ledger()
    assert (attempt.outcome, attempt.output_tokens, call["output_tokens"]) == ("completed", 30, 30)
    assert what_came_back(simulator) == ["stream"]
    assert ("reset", None) not in log_of(job)
    assert text_of(job) == JobResult.objects.get(job=job).output_text


def test_a_provider_that_is_gone_for_a_while_is_asked_for_the_same_response_again(client, pool, simulator):
    """The stream breaks, nobody answers, and attempts later the response is there."""

    def has_broken() -> None:
        assert Attempt.objects.filter(job=job, outcome="not_sent").exists()

    job = ask(client, pool, "Hello. [[tokens=30]] [[tokens_per_s=5]] [[fault=reset_midstream:1:20]]")
    with working():
        streams(job)
        simulator.control(refuse=True)
        eventually(has_broken)
        simulator.control(refuse=False)
        reaches(job, State.COMPLETED)
    broken, *others, completed = attempts_of(job)
    assert (broken.outcome, broken.error_code, broken.cost_usd) == ("unknown", "connection_lost", 0)
    assert {(attempt.outcome, attempt.cost_usd) for attempt in others} <= {("not_sent", 0)}
    assert (completed.outcome, completed.output_tokens) == ("completed", 30)
    assert len(simulator.ledger()) == 1
    assert len({attempt.provider_response_id for attempt in (broken, completed)}) == 1


def test_a_job_without_another_attempt_pays_for_what_its_response_said(client, pool, simulator):
    """Nobody will come back for it, so its price is not left to anybody."""
    [job] = submit(
        client, pool, endpoint=Endpoint.RESPONSES, max_attempts=1,
        body={"input": "[[tokens=400]] [[tokens_per_s=5]] [[fault=reset_midstream:1:15]]"},
    )  # fmt: skip
    with working():
        streams(job)
        simulator.control(refuse=True)
        reaches(job, State.DEAD)
    [attempt] = attempts_of(job)
    assert (attempt.outcome, attempt.output_tokens) == ("unknown", 15)


def test_a_provider_without_background_mode_is_never_asked_for_it(client, pool, simulator):
    pool.provider.has_background = False
    pool.provider.save()
    job = ask(client, pool, "Hello. [[tokens=3]]")
    run_until_empty()
    [attempt] = attempts_of(job)
    assert (attempt.outcome, attempt.provider_response_id) == ("completed", None)
    assert '"background":false' in JobResult.objects.get(job=job).output


@pytest.mark.parametrize("own", [{"background": False}, {"store": False}, {"stream": False}])
def test_a_request_that_excludes_the_background_is_left_as_it_is(own, client, pool, simulator):
    job = ask(client, pool, "Hello. [[tokens=3]]", **own)
    run_until_empty()
    [attempt] = attempts_of(job)
    assert (attempt.outcome, attempt.provider_response_id) == ("completed", None)


def test_a_stale_worker_can_not_name_a_response(client, pool):
    """Its note names the lease, which somebody else took back."""
    job = ask(client, pool, "Hello.")
    with hands(2) as (stale, other):
        [claimed] = stale.claim(pool)
        stale.release(claimed)
        [again] = other.claim(pool)
        for hand, lease in ((stale, claimed), (stale, again)):
            rows = [{"job_id": job.pk, "number": lease.attempt, "response_id": "resp_x"}]
            params = {"responses": json.dumps(rows), "worker": hand.worker}
            hand.run(hand.connection.execute(load("note_response"), params))
    assert [attempt.provider_response_id for attempt in attempts_of(job)] == [None, None]
