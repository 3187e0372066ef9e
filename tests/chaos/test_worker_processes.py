"""Real workers against a real provider, stopped, killed and cut off; the simulator's ledger says what was paid."""

import signal
from collections import Counter
from typing import Any

import pytest
from django.db import connection

from llmjobs import queue
from llmjobs.models import Attempt, Job, JobEvent, Worker
from llmjobs.states import TERMINAL
from llmjobs.testing import SimulatorProcess
from tests.hands import submit
from tests.helpers import eventually
from tests.simulated import KEY
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)


def ask(client: Any, pool: Any, words: str, count: int = 1, **fields: Any) -> list[Job]:
    return submit(client, pool, count, body={"messages": [{"role": "user", "content": words}]}, **fields)


def state_of(job: Job) -> str:
    return Job.objects.values_list("state", flat=True).get(pk=job.pk)


def reaches(job: Job, *states: str, within_s: float = 40) -> None:
    def look() -> None:
        assert (state := state_of(job)) in states, f"{state}: {Attempt.objects.filter(job=job).values()}"

    eventually(look, within_s)


def streams(job: Job) -> None:
    """Some text of the job has reached the log."""

    def look() -> None:
        assert JobEvent.objects.filter(job=job, type="delta").exists()

    eventually(look)


def calls_of(simulator: SimulatorProcess, job: Job) -> list[dict[str, Any]]:
    return [call for call in simulator.ledger() if (call["client_request_id"] or "").startswith(str(job.public_id))]


def text_of(job: Job) -> str:
    """What a viewer ends with, who drops the text at every reset."""
    text = ""
    for event in JobEvent.objects.filter(job=job).order_by("seq"):
        if event.type == "reset":
            text = ""
        elif event.type == "delta":
            text += event.data["text"]
    return text


def assert_all_is_told(simulator: SimulatorProcess) -> None:
    """Accepted is terminal; a completed job has one completed attempt; a call that was paid is in the ledger."""
    assert not Job.objects.exclude(state__in=TERMINAL).exists()
    completed = Attempt.objects.filter(outcome="completed").values_list("job_id", flat=True)
    assert sorted(completed) == sorted(Job.objects.filter(state="completed").values_list("pk", flat=True))
    ledger = {f"{attempt.job.public_id}.{attempt.number}" for attempt in Attempt.objects.select_related("job")}
    seen = Counter(call["client_request_id"] for call in simulator.ledger())
    assert set(seen) <= ledger
    assert max(seen.values(), default=1) == 1


def test_until_empty_runs_everything_and_says_what_it_did(client, pool, simulator):
    jobs = ask(client, pool, "Hello. [[tokens=5]]", count=20)
    retried = ask(client, pool, "Again. [[fault=server_error:1]] [[tokens=5]]")[0]

    with worker_process("--until-empty", **KEY) as worker:
        assert worker.ended() == 0, worker.output()

    assert "ended: 21 completed, 1 scheduled" in worker.output()
    assert {state_of(job) for job in jobs} == {"completed"}
    assert [attempt.outcome for attempt in Attempt.objects.filter(job=retried)] == ["unknown", "completed"]
    assert_all_is_told(simulator)


def test_max_jobs_stops_after_so_many(client, pool, simulator):
    ask(client, pool, "Hello. [[tokens=5]]", count=10)

    with worker_process("--max-jobs", "4", **KEY) as worker:
        assert worker.ended() == 0, worker.output()

    assert Counter(Job.objects.values_list("state", flat=True)) == {"completed": 4, "queued": 6}


def test_a_drain_finishes_what_runs_and_claims_nothing_more(client, pool, simulator):
    running = ask(client, pool, "Slowly. [[tokens=80]] [[tokens_per_s=20]]")[0]

    with worker_process("--concurrency", "1", **KEY) as worker:
        streams(running)
        waiting = ask(client, pool, "Later. [[tokens=5]]")[0]
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0, worker.output()

    assert state_of(running) == "completed"
    assert state_of(waiting) == "queued"
    assert Worker.objects.get().stopped_at is not None


def test_a_second_signal_hands_back_what_runs_without_a_failure(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=200]] [[tokens_per_s=20]]")[0]

    with worker_process(**KEY) as worker:
        streams(job)
        worker.signal(signal.SIGTERM)
        worker.said("event=drain ")
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0, worker.output()

    job.refresh_from_db()
    assert (job.state, job.attempt, job.failures) == ("queued", 1, 0)
    [attempt] = Attempt.objects.filter(job=job)
    assert attempt.outcome == "released"
    assert attempt.output_tokens and attempt.output_tokens > 0, "what was streamed is what it cost"


def test_the_drain_timeout_hands_back_what_did_not_end(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=200]] [[tokens_per_s=20]]")[0]

    with worker_process("--drain-timeout", "0.5", **KEY) as worker:
        streams(job)
        worker.signal(signal.SIGTERM)
        assert worker.ended() == 0, worker.output()

    assert state_of(job) == "queued"


def test_a_cancel_aborts_the_call_and_keeps_the_text(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=400]] [[tokens_per_s=20]]")[0]

    with worker_process(**KEY):
        streams(job)
        queue.cancel([job.pk])
        reaches(job, "cancelled")

    [call] = calls_of(simulator, job)
    assert call["outcome"] == "client_disconnected", "long before its 20 s were over"
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert job.result.output_text == text_of(job) != ""
    assert job.result.cost_usd is not None and job.result.cost_usd > 0
    assert_all_is_told(simulator)


def test_a_killed_workers_job_runs_again_on_another_and_its_text_starts_over(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=80]] [[tokens_per_s=20]]")[0]

    with worker_process(**KEY) as first:
        streams(job)
        first.kill()
        with worker_process(**KEY):
            reaches(job, "completed")

    outcomes = [(attempt.number, attempt.outcome) for attempt in Attempt.objects.filter(job=job)]
    assert outcomes == [(1, "lost"), (2, "completed")]
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert job.failures == 1
    assert text_of(job) == job.result.output_text
    assert JobEvent.objects.filter(job=job, type="reset").count() == 1
    assert len(calls_of(simulator, job)) == 2
    assert_all_is_told(simulator)


def test_a_job_that_kills_its_workers_ends_dead_and_does_not_loop(client, pool, simulator):
    job = ask(client, pool, "Never. [[fault=stall]]", max_attempts=2)[0]

    for attempt in (1, 2):
        with worker_process(**KEY) as worker:

            def is_called(number: int = attempt) -> None:
                assert len(calls_of(simulator, job)) == number

            eventually(is_called)
            worker.kill()
    with worker_process(**KEY):
        reaches(job, "dead")

    assert [attempt.outcome for attempt in Attempt.objects.filter(job=job)] == ["lost", "lost"]
    assert_all_is_told(simulator)


def test_a_worker_that_was_frozen_past_its_lease_writes_nothing_more(client, pool, simulator):
    job = ask(client, pool, "Slowly. [[tokens=100]] [[tokens_per_s=20]]")[0]

    with worker_process(**KEY) as frozen:
        streams(job)
        frozen.signal(signal.SIGSTOP)
        with worker_process(**KEY):
            reaches(job, "completed")
            before = list(JobEvent.objects.filter(job=job).values_list("seq", flat=True))
            frozen.signal(signal.SIGCONT)
            frozen.said("event=lease_lost")

        assert list(JobEvent.objects.filter(job=job).values_list("seq", flat=True)) == before

    assert [attempt.outcome for attempt in Attempt.objects.filter(job=job)] == ["lost", "completed"]
    assert_all_is_told(simulator)


def test_a_worker_that_is_cut_off_from_postgres_waits_resumes_and_loses_nothing(client, pool, simulator):
    jobs = ask(client, pool, "Slowly. [[tokens=40]] [[tokens_per_s=20]]", count=8)

    with worker_process("--until-empty", "--concurrency", "4", **KEY) as worker:
        streams(jobs[0])
        for _ in range(5):
            with connection.cursor() as cursor:
                cursor.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid()"
                )
            eventually_more = JobEvent.objects.count()

            def goes_on(before: int = eventually_more) -> None:
                assert JobEvent.objects.count() > before

            eventually(goes_on)
        assert worker.ended(60) == 0, worker.output()

    assert {state_of(job) for job in jobs} == {"completed"}
    assert all(text_of(job) == Job.objects.get(pk=job.pk).result.output_text for job in jobs)
    assert {attempt.outcome for attempt in Attempt.objects.all()} == {"completed"}, "no call was made twice"
    assert_all_is_told(simulator)


def test_a_provider_that_is_away_costs_no_failure_and_its_jobs_run_when_it_is_back(client, pool, simulator):
    simulator.control(refuse=True)
    job = ask(client, pool, "Hello. [[tokens=5]]", max_attempts=1)[0]

    with worker_process(**KEY):

        def was_tried() -> None:
            assert Attempt.objects.filter(job=job, outcome="not_sent").count() >= 3

        eventually(was_tried)
        simulator.control(refuse=False)
        reaches(job, "completed")

    job.refresh_from_db()
    assert job.failures == 0


def test_every_fault_at_once_ends_every_job(client, pool, simulator):
    simulator.control(fail_rate=0.3, seed=7)
    jobs = ask(client, pool, "Hello. [[tokens=8]]", count=60, max_attempts=20, timeout_s=3)

    with worker_process("--until-empty", LLMJOBS_FIRST_TOKEN_TIMEOUT_S="1", **KEY) as worker:
        assert worker.ended(90) == 0, worker.output()

    states = Counter(state_of(job) for job in jobs)
    assert states["completed"] >= 40, states
    assert set(states) <= {"completed", "failed", "dead"}, states
    assert_all_is_told(simulator)
