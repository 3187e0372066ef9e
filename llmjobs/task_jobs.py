"""Jobs that are tasks of Django's TASKS: what is kept of a task, and the TaskResult that a job is.

Kept is, beside the request, where the task's function stands and what it was called with (`JobRequest.task`), so that
any process can show the result. It goes when the job's request is erased. Does not own what a task may be (`tasks.py`).
Invariant: a result says what the job's row, its result and its ledger say, whoever asks and whenever.
"""

from __future__ import annotations  # Task and TaskResult are generic for type checkers only

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask, InvalidTaskBackend, TaskResultDoesNotExist
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import import_string
from django.utils.timezone import get_default_timezone, is_aware, make_aware

from llmjobs import handlers, submissions
from llmjobs.errors import InvalidRequest, LlmjobsError
from llmjobs.models import Attempt, Job
from llmjobs.states import DEAD_LETTERS, State
from llmjobs.submitting import owner_of, submit_submission

ATTEMPTS_MAX = 1_000  # shown; a job that is refused by a rate limit for a day has more
STATUS = {
    State.SCHEDULED: TaskResultStatus.READY,
    State.QUEUED: TaskResultStatus.READY,
    State.RUNNING: TaskResultStatus.RUNNING,
    State.COMPLETED: TaskResultStatus.SUCCESSFUL,
}


class CallFailed(LlmjobsError):
    """What a TaskResult's errors name: an attempt at the call, or the job, did not succeed."""


def submit(
    task: Task[..., Any], args: Any, kwargs: Any, fields: Mapping[str, Any], *, told: str | None
) -> TaskResult[..., Any]:
    """`fields`: of queue.submit; `told`: a function that is called with the job's end beside the signal."""
    given = dict(fields)
    client, key, on_settled = (given.pop(name, None) for name in ("client", "idempotency_key", "on_settled"))
    if client is None:
        expected = "expected a client in the task's request, or in the OPTIONS of its backend"
        raise InvalidRequest(f"{expected}, got none", param="client", code="missing_required_parameter")
    submission = submissions.parse(given)
    if task.run_after is not None:
        delay_s = max(0.0, (_aware(task.run_after) - datetime.now(UTC)).total_seconds())
        # Its fingerprint is the one without: the same key a moment later comes with the same submission.
        submission = replace(submissions.parse({**given, "delay_s": delay_s}), fingerprint=submission.fingerprint)
    if submission.joins:
        raise InvalidRequest('expected "none" for a task, whose result is its own, got "join"', param="dedupe")
    if told is not None:
        handlers.check(told)
    if on_settled is not None:
        submission = handlers.attached(submission, on_settled)
    kept = {
        "path": task.module_path, "args": args, "kwargs": kwargs, "backend": task.backend, "queue": task.queue_name,
        "priority": task.priority, "run_after": task.run_after and task.run_after.isoformat(), "told": told,
    }  # fmt: skip
    submission = replace(submission, task=json.dumps(kept, ensure_ascii=False))
    job, is_earlier = submit_submission(owner_of(client), submission, key)
    if is_earlier:
        return result(str(job.public_id))
    return _result(job, task, kept)


def result(result_id: str) -> TaskResult[..., Any]:
    """Raises TaskResultDoesNotExist."""
    try:
        public_id = UUID(result_id)
    except (TypeError, ValueError, AttributeError):
        raise TaskResultDoesNotExist(f"expected a job's id, got {result_id!r}") from None
    job = Job.objects.select_related("request", "result").filter(public_id=public_id).first()
    kept = _kept(job)
    if job is None or kept is None:
        raise TaskResultDoesNotExist(f"there is no job {result_id} that a task made, or it was erased")
    return _result(job, _task(kept), kept)


def told_of(job: Job) -> str | None:
    kept = _kept(job)
    return kept["told"] if kept else None


def _kept(job: Job | None) -> dict[str, Any] | None:
    request = getattr(job, "request", None)
    return None if request is None or request.task is None else json.loads(request.task)


def _task(kept: Mapping[str, Any]) -> Task[..., Any]:
    try:
        found = import_string(kept["path"])
    except ImportError as error:
        raise TaskResultDoesNotExist(f"expected a task at {kept['path']}, got {error}") from error
    if not isinstance(found, Task):
        raise TaskResultDoesNotExist(f"expected a task at {kept['path']}, got a {type(found).__name__}")
    try:
        return found.using(
            priority=kept["priority"],
            queue_name=kept["queue"],
            run_after=kept["run_after"] and parse_datetime(kept["run_after"]),
            backend=kept["backend"],
        )
    except (InvalidTask, InvalidTaskBackend) as error:  # the settings have changed since
        raise TaskResultDoesNotExist(f"expected {kept['path']} as it was enqueued, got: {error}") from error


def _result(job: Job, task: Task[..., Any], kept: Mapping[str, Any]) -> TaskResult[..., Any]:
    attempts = list(Attempt.objects.filter(job_id=job.pk).order_by("number")[:ATTEMPTS_MAX]) if job.attempt else []
    shown: TaskResult[..., Any] = TaskResult(
        task=task,
        id=str(job.public_id),
        status=STATUS.get(State(job.state), TaskResultStatus.FAILED),
        enqueued_at=job.created_at,
        started_at=attempts[0].claimed_at if attempts else None,
        last_attempted_at=job.started_at,
        finished_at=job.finished_at,
        args=kept["args"],
        kwargs=kept["kwargs"],
        backend=kept["backend"],
        errors=_errors(job, attempts),
        worker_ids=[str(attempt.worker_id) for attempt in attempts],
    )
    if job.state == State.COMPLETED:
        object.__setattr__(shown, "_return_value", _value(job))  # as Django's own backends set it
    return shown


def _errors(job: Job, attempts: list[Attempt]) -> list[TaskError]:
    """Of the attempts that failed; and why there is no answer, where no attempt says it."""
    said = [f"{each.error_code}: {each.error_message or ''}" for each in attempts if each.error_code]
    if job.state in (State.CANCELLED, State.EXPIRED):
        said.append(f"The job ended as {job.state}.")
    elif job.state in DEAD_LETTERS and not (attempts and attempts[-1].error_code):
        last = getattr(job, "result", None)
        why = f"{last.error_code}: {last.error_message or ''}" if last and last.error_code else None
        said.append(why or f"The job ended as {job.state}.")
    path = f"{CallFailed.__module__}.{CallFailed.__qualname__}"
    return [TaskError(exception_class_path=path, traceback=text) for text in said]


def _value(job: Job) -> dict[str, Any]:
    """The same shape for every endpoint; `text` is empty where the answer is no text."""
    cost = job.result.cost_usd
    return {
        "text": job.output_text,
        "output": job.output,
        "usage": job.result.usage,
        "cost_usd": None if cost is None else float(cost),
    }


def _aware(moment: datetime) -> datetime:
    return moment if is_aware(moment) else make_aware(moment, get_default_timezone())
