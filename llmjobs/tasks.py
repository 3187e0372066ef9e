"""The backend for Django's TASKS (Django 6) whose tasks are jobs.

    TASKS = {
        "default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
        "llm": {
            "BACKEND": "llmjobs.tasks.LLMJobsBackend",
            "QUEUES": ["default", "night"],
            "OPTIONS": {
                "client": "acme", "model": "gpt-4.1-mini", "timeout_s": 60,
                "queues": {"night": {"priority": "background"}},
            },
        },
    }

    @task(backend="llm")
    def summarise(text):
        return {"messages": [{"role": "user", "content": f"Summarise: {text}"}]}

    result = summarise.enqueue(article.text)   # result.id is the job's id

A task's function says what to ask: it is called by `enqueue`, and returns the fields of `queue.submit`. It runs where
the task is enqueued, because limits, estimates and idempotency need the request then; a worker makes the call. What the
function leaves out comes from the task's queue in OPTIONS, then from OPTIONS itself.

Owns what a task may be, and its options. Does not own what is stored of a task, nor its result (`task_jobs.py`).
Invariant: a task is enqueued if, and only if, its job commits: `enqueue` takes part in the caller's transaction.
"""

from __future__ import annotations  # Task and TaskResult are generic for type checkers only

from collections.abc import Mapping
from typing import Any, ParamSpec, TypeVar

import django
from asgiref.sync import sync_to_async
from django.core.checks import CheckMessage, Error
from django.utils.module_loading import import_string

try:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskResult
    from django.tasks.exceptions import InvalidTask
    from django.tasks.signals import task_enqueued, task_finished
    from django.utils.json import normalize_json
except ImportError as error:
    needs = f"llmjobs.tasks needs Django 6.0 or newer, which has django.tasks; this is Django {django.get_version()}"
    raise ImportError(f"{needs}. Without it submit jobs by llmjobs.queue.submit.") from error

from llmjobs.errors import InvalidRequest
from llmjobs.states import Priority
from llmjobs.submissions import FIELDS

P = ParamSpec("P")
R = TypeVar("R")
PROMPT = frozenset({"messages", "input", "body"})
DEFAULTS = FIELDS - PROMPT - {"dedupe"} | {"client", "on_settled"}
TELL_FINISHED = "llmjobs.tasks.tell_finished"

# From which of Django's priorities on (-100 to 100, the larger goes first) a task has which of ours; 0 is none of them:
# it leaves the word to the function and the options.
URGENCY = ((51, Priority.CRITICAL), (1, Priority.HIGH), (-50, Priority.LOW), (-100, Priority.BACKGROUND))


class LLMJobsBackend(BaseTaskBackend):
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def validate_task(self, task: Task[..., Any]) -> None:
        super().validate_task(task)
        if task.takes_context:
            expected = "expected a task without takes_context: its function is called before there is a job"
            raise InvalidTask(f"{expected}, got {task.module_path}")

    def enqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """Raises what queue.submit raises: InvalidRequest, QueueFull, InsufficientQuota, …"""
        self.validate_task(task)
        args, kwargs = normalize_json(args), normalize_json(kwargs)
        return self._submit(task, args, kwargs, task.call(*args, **kwargs))

    async def aenqueue(self, task: Task[P, R], args: Any, kwargs: Any) -> TaskResult[P, R]:
        """In a transaction of its own: an async caller has none that it could join."""
        self.validate_task(task)
        args, kwargs = normalize_json(args), normalize_json(kwargs)
        request = await task.acall(*args, **kwargs)
        return await sync_to_async(self._submit, thread_sensitive=True)(task, args, kwargs, request)

    def get_result(self, result_id: str) -> TaskResult[..., Any]:
        """Raises TaskResultDoesNotExist, also for a job that is no task, and for one that was erased."""
        # Here and below: a host's models may import its tasks, before the tables are known.
        from llmjobs import task_jobs

        return task_jobs.result(result_id)

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        named = f"TASKS[{self.alias!r}]['OPTIONS']"
        queues = self.options.get("queues", {})
        found = [*_unknown(named, self.options, DEFAULTS | {"queues", "signals"})]
        if not isinstance(queues, Mapping):
            return [*found, _wrong(f"{named}['queues']", "a dictionary of queues", type(queues).__name__)]
        for name, defaults in queues.items():
            if self.queues and name not in self.queues:
                found.append(_wrong(f"{named}['queues']", f"names of QUEUES ({', '.join(sorted(self.queues))})", name))
            found += _unknown(f"{named}['queues'][{name!r}]", defaults, DEFAULTS)
        return found

    def _submit(self, task: Task[..., Any], args: Any, kwargs: Any, returned: Any) -> Any:
        from llmjobs import task_jobs

        if not isinstance(returned, Mapping):
            expected = f"expected {task.module_path} to return the fields of a submit, such as model and messages"
            raise InvalidRequest(f"{expected}, got {type(returned).__name__}", code="invalid_type")
        fields = {**self._defaults(task.queue_name), **returned}
        if task.priority:
            fields["priority"] = int(_urgency(task.priority))
        told = fields.get("on_settled")
        if self.options.get("signals"):
            fields["on_settled"] = TELL_FINISHED
        result = task_jobs.submit(task, args, kwargs, fields, told=told if self.options.get("signals") else None)
        task_enqueued.send(type(self), task_result=result)
        return result

    def _defaults(self, queue: str) -> dict[str, Any]:
        of_all = {name: value for name, value in self.options.items() if name in DEFAULTS}
        return {**of_all, **self.options.get("queues", {}).get(queue, {})}


def tell_finished(job: Any) -> None:
    """For OPTIONS["signals"]: what a worker calls in the transaction that ends a task's job; at least once."""
    from llmjobs import task_jobs

    if (told := task_jobs.told_of(job)) is not None:
        import_string(told)(job)
    task_finished.send(LLMJobsBackend, task_result=task_jobs.result(str(job.public_id)))


def _urgency(priority: int) -> Priority:
    return next(ours for least, ours in URGENCY if priority >= least)


def _unknown(named: str, given: Any, known: frozenset[str]) -> list[CheckMessage]:
    if not isinstance(given, Mapping):
        return [_wrong(named, "a dictionary", type(given).__name__)]
    return [_wrong(named, f"one of {', '.join(sorted(known))}", repr(name)) for name in given if name not in known]


def _wrong(where: str, expected: str, came: str) -> Error:
    return Error(f"{where}: expected {expected}, got {came}.", id="llmjobs.tasks.E001")
