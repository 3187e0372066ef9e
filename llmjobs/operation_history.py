"""Operations in the admin's history: who began, stopped and ended what, and each job of a small one.

Owns the words. Where the host has no admin, or the user has gone, the operation's own row tells all the same.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.models import ContentType

from llmjobs.models import Job, Operation
from llmjobs.operation_verbs import VERBS

LOG_EACH_MAX = 200  # an entry a job up to here


def begun(operation: Operation) -> None:
    jobs = "job" if operation.total == 1 else "jobs"
    _write(operation, operation.user_id, f"{_title(operation)} {operation.total:,} {jobs}", why=operation.reason)


def ended(operation: Operation) -> None:
    if operation.total > LOG_EACH_MAX:  # the others' jobs tell
        _write(
            operation, operation.user_id, f"{done_word(operation)} {operation.changed:,} of {operation.total:,} jobs"
        )


def note(operation: Operation, user: Any, what: str) -> None:
    left = f" after {operation.changed:,} of {operation.total:,} jobs"
    _write(operation, user.pk if user else None, what + left)


def changed(operation: Operation, job_ids: Sequence[int]) -> None:
    """In the transaction that changed them."""
    if operation.total > LOG_EACH_MAX or not job_ids or operation.user_id is None:
        return
    if log := _log():
        rows = list(Job.objects.filter(pk__in=job_ids).only("pk", "public_id").order_by("pk"))
        done = VERBS[operation.verb].done
        did = f"{done}, undone" if operation.undoes_id else done
        log.objects.log_actions(operation.user_id, rows, 2, _with(did, operation.reason))


def _write(operation: Operation, user_id: Any, what: str, *, why: str = "") -> None:
    log = _log()
    if log is None or user_id is None:
        return
    log.objects.create(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(Operation),
        object_id=str(operation.pk),
        object_repr=str(operation)[:200],
        action_flag=2,  # a change
        change_message=_with(what, why),
    )


def _log() -> Any:
    return apps.get_model("admin", "LogEntry") if apps.is_installed("django.contrib.admin") else None


def _title(operation: Operation) -> str:
    title = VERBS[operation.verb].title
    return f"Undo {title.lower()}" if operation.undoes_id else title


def done_word(operation: Operation) -> str:
    """ "Requeued"; of an undo "Undone for"."""
    return "Undone for" if operation.undoes_id else VERBS[operation.verb].done


def _with(what: str, why: str) -> str:
    return f"{what}: {why}" if why else f"{what}."
