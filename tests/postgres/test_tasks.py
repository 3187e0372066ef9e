"""The backend for Django's TASKS: tasks are jobs, as the standard interface shows them. Needs Django 6."""

import sys
from datetime import timedelta
from types import ModuleType

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from llmjobs import queue
from llmjobs.docs.contents import BY_SLUG
from llmjobs.docs.fences import blocks
from llmjobs.errors import InvalidRequest, QueueFull
from llmjobs.models import Client, HandlerCall, Job
from llmjobs.testing import SimulatorProcess, run_jobs
from tests.factories import make_job, make_model
from tests.host_handlers import saved

pytest.importorskip("django.tasks", reason="django.tasks came with Django 6")

from django.core.checks import run_checks
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def options(settings, client, pool):
    """OPTIONS of the backend `llm`; a test may change them before its first task."""
    options = {
        "client": client.name,
        "model": pool.name,
        "queues": {"night": {"priority": "background", "timeout_s": 7}},
    }
    backend = {"BACKEND": "llmjobs.tasks.LLMJobsBackend", "QUEUES": ["default", "night"], "OPTIONS": options}
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}, "llm": backend}
    client.tier.max_priority = 0
    client.tier.save()
    return options


@pytest.fixture
def tasks():
    from tests import host_tasks

    return host_tasks


@pytest.fixture(scope="module")
def simulator():
    with SimulatorProcess() as process:
        yield process


def job_of(result):
    return Job.objects.select_related("request", "pool", "client").get(public_id=result.id)


def test_the_page_of_the_documentation_does_what_it_says(settings, simulator, pool, monkeypatch, capsys):
    """Its blocks of Python: the settings, `shop/tasks.py`, and who enqueues; a worker runs before he asks again."""
    page = BY_SLUG["django-tasks"].path.read_text()
    configured, defined, used = [block.code for block in blocks(page) if block.kind == "python"]
    enqueued, asked = used.split("result = summarise.get_result")
    names, shop = {}, ModuleType("shop.tasks")
    make_model("gpt-4.1-mini", provider=pool.provider)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.tasks", shop)

    def run(code, names):
        exec(code, names)  # noqa: S102 (a page of ours)

    run(configured, names)
    settings.TASKS = names["TASKS"]
    run(defined, vars(shop))
    run(enqueued, names)
    [job] = run_jobs(simulator_url=simulator.url)
    run(f"result = summarise.get_result{asked}", names)
    assert capsys.readouterr().out == f"SUCCESSFUL {job.output_text}\n"


def test_a_task_is_a_job_and_its_result_tells_how_that_went(tasks, simulator, client, pool):
    result = tasks.summarise.enqueue("The whale.", words=4)
    job = job_of(result)
    assert (job.client, job.pool, job.request.metadata) == (client, pool, {"of": "summarise"})
    assert "The whale. [[tokens=4]]" in job.request.body
    assert (result.status, result.attempts, result.is_finished) == (TaskResultStatus.READY, 0, False)
    assert (result.args, result.kwargs, result.enqueued_at) == (["The whale."], {"words": 4}, job.created_at)
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    run_jobs(simulator_url=simulator.url)
    result.refresh()
    job = Job.objects.select_related("result").get(pk=job.pk)
    assert (result.status, result.attempts, result.errors) == (TaskResultStatus.SUCCESSFUL, 1, [])
    value = result.return_value
    assert (value["text"], value["output"], value["usage"]["completion_tokens"]) == (job.output_text, job.output, 4)
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at == job.finished_at
    found = tasks.summarise.get_result(result.id)
    assert (found.task, found.args, found.kwargs, found.return_value) == (
        tasks.summarise,
        ["The whale."],
        {"words": 4},
        value,
    )


def test_a_task_belongs_to_the_transaction_that_it_is_enqueued_in(tasks):
    with pytest.raises(RuntimeError), transaction.atomic():
        result = tasks.summarise.enqueue("Never.")
        assert job_of(result).state == "queued"
        raise RuntimeError
    assert not Job.objects.exists()
    with pytest.raises(TaskResultDoesNotExist):
        tasks.summarise.get_result(result.id)


def test_queue_priority_and_time_of_a_task_are_those_of_its_job(tasks):
    later = timezone.now() + timedelta(hours=1)
    by_default = tasks.summarise.enqueue("a")
    assert (job_of(by_default).priority, job_of(by_default).timeout_s) == (5, 120)
    deferred = tasks.summarise.using(run_after=later, queue_name="night").enqueue("b")
    job = job_of(deferred)
    assert (job.state, job.priority, job.timeout_s) == ("scheduled", 10, 7)
    assert abs((job.available_at - later).total_seconds()) < 5
    assert tasks.summarise.get_result(deferred.id).task == deferred.task
    ours = {100: 0, 51: 0, 50: 1, 1: 1, -1: 8, -50: 8, -51: 10, -100: 10}
    for theirs, priority in ours.items():
        assert job_of(tasks.summarise.using(priority=theirs).enqueue("c")).priority == priority, theirs
    assert job_of(tasks.translate.using(priority=0).enqueue("d")).priority == 8, "the function's word goes before"
    assert job_of(tasks.summarise.using(run_after=timezone.now() - timedelta(days=1)).enqueue("e")).state == "queued"


def test_async_tasks_and_async_callers(tasks):
    result = tasks.translate.enqueue("Wal")
    assert job_of(result).priority == 1

    async def ask():
        enqueued = [await tasks.translate.aenqueue("Wal"), await tasks.summarise.aenqueue("Wal")]
        found = await tasks.summarise.aget_result(enqueued[1].id)
        await found.arefresh()
        return [*enqueued, found]

    of_coroutine, of_function, found = async_to_sync(ask)()
    assert of_coroutine.task == tasks.translate
    assert (found.id, found.status) == (of_function.id, TaskResultStatus.READY)


def test_a_task_that_fails_tells_of_each_attempt(tasks, simulator):
    bad = tasks.summarise.enqueue("[[fault=context_length]]")
    shaky = tasks.summarise.enqueue("[[fault=server_error:1]]")
    gone = tasks.summarise.using(run_after=timezone.now() + timedelta(days=1)).enqueue("b")
    run_jobs(simulator_url=simulator.url, timeout_s=20)
    queue.cancel([job_of(gone).pk])
    for result in (bad, shaky, gone):
        result.refresh()
    assert (shaky.status, shaky.attempts, len(shaky.errors)) == (TaskResultStatus.SUCCESSFUL, 2, 1)
    assert shaky.started_at < shaky.last_attempted_at < shaky.finished_at
    assert (bad.status, gone.status) == (TaskResultStatus.FAILED, TaskResultStatus.FAILED)
    [error] = bad.errors
    assert issubclass(error.exception_class, Exception)
    assert error.traceback.startswith(f"{job_of(bad).result.error_code}: ")
    assert len(gone.errors) == 1 and gone.worker_ids == []
    with pytest.raises(ValueError, match="failed"):
        _ = bad.return_value


def test_what_was_cancelled_says_so_beside_what_failed_before(tasks, simulator):
    result = tasks.summarise.enqueue("[[fault=server_error]]")
    run_jobs(simulator_url=simulator.url, until_empty=False)
    queue.cancel([job_of(result).pk])
    result.refresh()
    failed, cancelled = (error.traceback for error in result.errors)
    assert failed.startswith("server_error: ") and cancelled == "The job ended as cancelled."


def test_a_result_whose_queue_is_gone_is_told_as_one_that_is_not_there(tasks, settings):
    result = tasks.summarise.using(queue_name="night").enqueue("a")
    llm = settings.TASKS["llm"]
    options = {name: value for name, value in llm["OPTIONS"].items() if name != "queues"}
    settings.TASKS = {**settings.TASKS, "llm": {**llm, "QUEUES": ["default"], "OPTIONS": options}}
    with pytest.raises(TaskResultDoesNotExist, match="Queue 'night' is not valid"):
        tasks.summarise.get_result(result.id)


def test_an_answer_that_is_no_text_comes_as_the_provider_gave_it(tasks, simulator):
    result = tasks.embed.enqueue("whale")
    run_jobs(simulator_url=simulator.url)
    result.refresh()
    assert (result.return_value["text"], len(result.return_value["output"]["data"])) == ("", 1)


def test_what_is_no_task_has_no_result(tasks):
    result = tasks.summarise.enqueue("a")
    with pytest.raises(TaskResultMismatch):
        tasks.embed.get_result(result.id)
    for unknown in (str(make_job().public_id), "nothing", "019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90"):
        with pytest.raises(TaskResultDoesNotExist):
            tasks.summarise.get_result(unknown)


def test_what_was_erased_tells_no_arguments(tasks):
    result = tasks.keyed.enqueue("My secret.")
    queue.cancel([job_of(result).pk])
    queue.erase(job_of(result).pk)
    assert job_of(result).request.task is None, "the row stays for its key"
    with pytest.raises(TaskResultDoesNotExist):
        tasks.keyed.get_result(result.id)


def test_a_key_that_comes_again_finds_the_first_task(tasks):
    first = tasks.keyed.enqueue("a")
    later = tasks.keyed.using(run_after=timezone.now() + timedelta(hours=1))
    assert tasks.keyed.enqueue("a").id == first.id
    assert later.enqueue("b").id == later.enqueue("b").id
    assert Job.objects.count() == 2


def test_the_signals_are_sent_when_asked_for_beside_the_functions_own_handler(tasks, options, simulator):
    options["signals"] = True
    said = []
    receivers = [
        (task_enqueued, lambda task_result, **_: said.append(("enqueued", task_result.id, task_result.status))),
        (task_finished, lambda task_result, **_: said.append(("finished", task_result.id, task_result.status))),
    ]
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)
    try:
        result = tasks.told.enqueue("a")
        run_jobs(simulator_url=simulator.url)
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)
    assert said == [("enqueued", result.id, "READY"), ("finished", result.id, "SUCCESSFUL")]
    assert HandlerCall.objects.get().state == "done"
    assert len(saved(job_of(result))) == 1, "the handler of the function's own was called"


def test_what_can_be_no_task_is_refused_with_what_was_expected(tasks, options, client):
    with pytest.raises(InvalidRequest, match=r"expected tests\.host_tasks\.careless to return the fields .*, got str"):
        tasks.careless.enqueue("a")
    with pytest.raises(InvalidRequest, match="whose result is its own"):
        tasks.joining.enqueue("a")
    with pytest.raises(TypeError):
        tasks.summarise.enqueue(object())
    with pytest.raises(InvalidTask, match="takes_context"):
        task_backends["llm"].task_class(
            priority=0, func=with_context, queue_name="default", backend="llm", takes_context=True, run_after=None
        )
    with pytest.raises(InvalidTask, match="Queue 'noon' is not valid"):
        tasks.summarise.using(queue_name="noon")
    Client.objects.filter(pk=client.pk).update(max_queued=0)
    with pytest.raises(QueueFull):
        tasks.summarise.enqueue("a")
    options.pop("client")
    with pytest.raises(InvalidRequest, match="expected a client"):
        tasks.summarise.enqueue("a")


def with_context(context):
    return {}


def test_wrong_options_are_found_by_check(options):
    assert not [each for each in run_checks() if each.id == "llmjobs.tasks.E001"]
    options.update(modle="x", queues={"noon": {"model": "a"}, "night": {"messages": []}})
    found = [each.msg for each in run_checks() if each.id == "llmjobs.tasks.E001"]
    assert len(found) == 3
    assert "'modle'" in found[0] and "got noon" in found[1] and "'messages'" in found[2]
    options["queues"] = ["night"]
    assert "expected a dictionary of queues, got list" in [each.msg for each in run_checks()][-1]
