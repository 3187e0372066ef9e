"""What had come before a break is paid for: kept where the job asks for it, and not bought again where it was whole."""

import json
import threading
from typing import Any

import pytest

from llmjobs import queue
from llmjobs.models import Attempt, Client, Job, JobEvent, JobResult, Model
from llmjobs.states import State
from tests.factories import make_model, make_provider
from tests.hands import submit
from tests.helpers import eventually
from tests.worker.running import log_of, reaches, run_until_empty, streams, working
from tests.worker.scripted import said, scripted, stream_answer
from tests.worker_process import worker_process

pytestmark = pytest.mark.django_db(transaction=True)


def result_of(job: Job) -> JobResult:
    return JobResult.objects.get(job_id=job.pk)


@pytest.mark.parametrize("fault", ["truncate", "reset_midstream", "stream_error"])
@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_a_stream_that_breaks_is_an_answer_to_who_keeps_what_had_come(
    client: Client, pool: Model, endpoint: str, fault: str
) -> None:
    words = f"Hello. [[tokens=20]] [[fault={fault}]]"
    asked = {"messages": [{"role": "user", "content": words}]} if "chat" in endpoint else {"input": words}
    [job] = submit(client, pool, body=asked, on_interrupt="keep")

    run_until_empty()

    job.refresh_from_db()
    result, [attempt] = result_of(job), Attempt.objects.all()
    assert (job.state, job.failures, attempt.outcome) == (State.COMPLETED, 0, "interrupted")
    assert attempt.error_code and "on_interrupt" in attempt.decision, "why it broke off stands in the ledger"
    assert result.error_code is None and result.output_text
    assert attempt.cost_usd and attempt.cost_usd == result.cost_usd, "what had come is paid"
    output = json.loads(result.output)
    if "chat" in endpoint:
        [choice] = output["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("interrupted", result.output_text)
    else:
        assert output["status"] == "incomplete" and output["incomplete_details"] == {"reason": "interrupted"}
        assert output["output"][0]["content"][0]["text"] == result.output_text
    assert log_of(job)[-1] == ("done", "completed")


def test_who_does_not_ask_for_it_starts_over(client: Client, pool: Model) -> None:
    [job] = submit(
        client, pool, body={"messages": [{"role": "user", "content": "Hi. [[fault=truncate:1]] [[tokens=9]]"}]}
    )
    run_until_empty()
    assert [attempt.outcome for attempt in Attempt.objects.filter(job=job)] == ["unknown", "completed"]
    assert json.loads(result_of(job).output)["choices"][0]["finish_reason"] == "stop"


def test_a_break_before_the_first_word_starts_over(client: Client, pool: Model) -> None:
    body = {"messages": [{"role": "user", "content": "Hi. [[fault=server_error:1]] [[tokens=9]]"}]}
    [job] = submit(client, pool, body=body, on_interrupt="keep")
    run_until_empty()
    assert [attempt.outcome for attempt in Attempt.objects.filter(job=job)] == ["unknown", "completed"]


def test_a_cancel_is_no_break(client: Client, pool: Model) -> None:
    body = {"messages": [{"role": "user", "content": "Hi. [[tokens=400]] [[tokens_per_s=40]]"}]}
    [job] = submit(client, pool, body=body, on_interrupt="keep")
    with working():
        streams(job)
        queue.cancel([job.pk])
        reaches(job, State.CANCELLED)


def test_a_drain_that_runs_out_of_time_ends_a_job_that_keeps_what_had_come(client: Client, pool: Model) -> None:
    body = {"messages": [{"role": "user", "content": "Hi. [[tokens=400]] [[tokens_per_s=40]]"}]}
    [job] = submit(client, pool, body=body, on_interrupt="keep")
    with working(drain_timeout_s=0.1):
        streams(job)
    job.refresh_from_db()
    assert (job.state, Attempt.objects.get().outcome) == (State.COMPLETED, "interrupted")


def test_an_answer_whose_text_was_all_there_is_not_bought_again_when_its_worker_is_killed(client: Client) -> None:
    """The provider has said its finish_reason, and is slow to end the stream: another call would cost as much again."""
    ending = threading.Event()
    *text, finish, end = said("Hello ", "there.")

    def answer(request: Any) -> Any:
        head, *rest = stream_answer(*text, finish, end)
        return [head, *rest[:-1], ending, rest[-1]]

    with scripted(answer) as provider:
        pool = make_model("slow", provider=make_provider("scripted", base_url=provider.url))
        [job] = submit(client, pool)
        with worker_process() as first:

            def all_is_there() -> None:
                assert JobEvent.objects.filter(job=job, data__finish_reason="stop").exists()

            eventually(all_is_there, 20)
            first.kill()
            with worker_process():
                reaches(job, State.COMPLETED, within_s=20)
        ending.set()
        assert len(provider.requests) == 1

    assert result_of(job).output_text == "Hello there."
    assert [attempt.outcome for attempt in Attempt.objects.filter(job=job)] == ["completed"]
