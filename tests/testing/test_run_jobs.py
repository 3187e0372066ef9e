"""A host's tests of its own code: what is queued runs to its end, says what it was told to, and nobody is paid."""

import threading

import pytest
from django.core.management import call_command
from django.db import connection

from llmjobs.models import Attempt, Job, Provider, Tier, WebhookDelivery, Worker
from llmjobs.queue import cancel, submit, submit_many
from llmjobs.testing import HandlerFailed, JobsLeft, SimulatorProcess, arun_jobs, make_client, run_jobs
from tests import host_handlers
from tests.factories import make_model, make_provider
from tests.helpers import eventually

HELLO = [{"role": "user", "content": "Hello."}]


def test_what_is_queued_runs_to_its_end_and_its_handler_is_called(llm_client, llm_simulator):
    llm_simulator.answers("First.", "Second.")
    llm_simulator.answers("Paris.", when="France")
    asked = {"model": "gpt-4.1-mini", "messages": HELLO, "on_settled": "tests.host_handlers.save"}
    one = submit(client="tests", **asked)
    [first] = run_jobs()
    submit_many(client=llm_client, jobs=[asked, {"model": "other", "input": "Which town of France?"}])
    second, third = run_jobs()
    assert [job.output_text for job in (first, second, third)] == ["First.", "Second.", "Paris."]
    assert (first.id, first.state) == (one.id, "completed") and run_jobs() == []
    assert host_handlers.saved(first) == ["completed First."]
    assert [call["outcome"] for call in llm_simulator.ledger()] == ["completed"] * 3
    assert not any("run_jobs" in thread.name for thread in threading.enumerate())
    assert not Worker.objects.filter(stopped_at=None).exists(), "the worker has signed off"


def test_no_call_goes_to_the_providers_of_the_tables_nor_takes_their_keys(llm_client, llm_simulator, monkeypatch):
    monkeypatch.setenv("PAID_API_KEY", "sk-of-a-developer")
    for name, env in (("paid", "PAID_API_KEY"), ("unset", "UNSET_API_KEY")):
        make_model(name, provider=make_provider(base_url="https://provider.invalid/v1", api_key_env=env))
        submit(client=llm_client, model=name, messages=HELLO)
    assert [job.state for job in run_jobs()] == ["completed"] * 2
    assert len({call["key"] for call in llm_simulator.ledger()}) == 1


def test_retries_run_and_tools_are_called_as_the_test_says(llm_client, llm_simulator):
    llm_simulator.fails("server_error", times=2)
    llm_simulator.calls_tools(("weather", {"city": "Paris"}))
    submit(client=llm_client, model="m", messages=HELLO)
    [job] = run_jobs()
    assert (job.state, job.attempt, Attempt.objects.count()) == ("completed", 3, 3)
    [call] = job.output["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    llm_simulator.fails("invalid_request")
    submit(client=llm_client, model="m", messages=HELLO)
    [job] = run_jobs()
    assert (job.state, job.result.error_code) == ("failed", "invalid_value")


def test_one_attempt_each_where_that_is_asked_for(llm_client, llm_simulator):
    """One after the other, so that the first would be due again long before the last has its turn."""
    llm_simulator.fails("server_error", times=1)
    submit_many(client=llm_client, jobs=[{"model": "m", "messages": HELLO, "max_attempts": 5}] * 8)
    ran = run_jobs(until_empty=False, concurrency=1)
    assert [(job.state, job.attempt) for job in ran] == [("scheduled", 1)] * 8
    assert [(job.state, job.attempt) for job in run_jobs()] == [("completed", 2)] * 8


def test_what_did_not_end_in_time_is_named_and_what_is_due_much_later_is_not_waited_for(llm_client, llm_simulator):
    later = submit(client=llm_client, model="m", messages=HELLO, delay_s=3600)
    assert [job.state for job in run_jobs()] == ["scheduled"]
    cancel([later.id])
    provider = Provider.objects.get()
    provider.is_paused = True
    provider.save()
    job = submit(client=llm_client, model="m", messages=HELLO)
    with pytest.raises(JobsLeft, match=f"{job.public_id} .m. is queued after 0 attempts, blocked by provider_paused"):
        run_jobs(timeout_s=0.5)


def test_a_handler_that_raises_fails_the_test(llm_client, llm_simulator):
    job = submit(client=llm_client, model="m", messages=HELLO, on_settled="tests.host_handlers.raises")
    with pytest.raises(HandlerFailed, match=r"tests\.host_handlers\.raises"):
        run_jobs()
    job.refresh_from_db()
    assert job.state == "completed", "the end stands"


def test_no_webhook_is_sent(llm_client, llm_simulator):
    """The first is due when the worker begins: it would be sent at once."""
    asked = {"model": "m", "messages": HELLO, "webhook_url": "https://hooks.invalid/llmjobs"}
    cancel([submit(client=llm_client, **asked).id])
    submit(client=llm_client, **asked)
    assert [job.state for job in run_jobs()] == ["completed"]
    told = WebhookDelivery.objects.order_by("id").values_list("type", "state", "retry_until")
    assert list(told) == [("job.cancelled", "pending", None), ("job.completed", "pending", None)]


def test_who_is_interrupted_leaves_no_worker_behind(llm_client, llm_simulator, monkeypatch):
    llm_simulator.fails("stall")
    job = submit(client=llm_client, model="m", messages=HELLO)
    join, interrupted = threading.Thread.join, []

    def interrupt(thread, timeout=None):
        if "run_jobs" in thread.name and not interrupted:
            interrupted.append(thread)
            eventually(lambda: _called(llm_simulator))
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_jobs()
    assert not interrupted[0].is_alive()
    job.refresh_from_db()
    assert job.state == "queued", "handed back"


def _called(simulator):
    assert simulator.ledger()


@pytest.mark.django_db
def test_a_test_that_does_not_commit_is_told_what_to_do(llm_simulator):
    make_client("acme")
    submit(client="acme", model="m", messages=HELLO)
    with pytest.raises(RuntimeError, match="transaction=True"):
        run_jobs()
    assert connection.in_atomic_block and Job.objects.count() == 1


def test_after_a_flush_what_migrations_brought_is_there_again(llm_client, llm_simulator):
    call_command("flush", interactive=False, verbosity=0)
    assert not Tier.objects.exists()
    submit(client=make_client(), model="m", messages=HELLO)
    assert [job.state for job in run_jobs()] == ["completed"]
    assert set(Tier.objects.values_list("name", flat=True)) == {"free", "pro", "enterprise"}
    changed = make_client(tier="free", max_queued=3)
    assert (changed, changed.tier.name, changed.max_queued) == (make_client(), "free", 3), "found by its name"


async def test_an_async_test_runs_jobs_too(transactional_db, llm_simulator):
    from asgiref.sync import sync_to_async
    from django.db import connections

    from llmjobs.queue import asubmit

    llm_simulator.answers("Hello you.")
    await sync_to_async(make_client)("acme")
    await asubmit(client="acme", model="m", messages=HELLO)
    [job] = await arun_jobs()
    assert job.output_text == "Hello you."
    await sync_to_async(connections.close_all)()


@pytest.mark.django_db(transaction=True)
def test_without_a_simulator_nothing_is_called():
    make_client("acme")
    make_model("m")
    submit(client="acme", model="m", messages=HELLO)
    with pytest.raises(RuntimeError, match="expected a simulator"):
        run_jobs()
    with SimulatorProcess() as simulator:
        assert [job.state for job in run_jobs(simulator_url=simulator.url)] == ["completed"]
