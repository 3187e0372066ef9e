"""Operations: what operators do to many jobs, in batches, with what became of each job written down.

    start(...)    fixes the jobs, and carries a small one out at once
    stop, resume  between two batches
    undo(...)     a new operation over those that were changed and that nobody touched since

Batches are `operation_steps.py`: workers make them (operation_duty.py), and a page that is looked at while none lives.
Does not own what a verb does (`queue.py`), nor whom it acts on (`operation_verbs.py`); whether somebody may is asked
by who calls. Invariant: the jobs of an operation are fixed when it starts, and one answer starts one operation.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from llmjobs import counts, operation_history, tallying
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, NotAllowed
from llmjobs.handlers import TransactionEnded
from llmjobs.models import Job, Operation, OperationState, Worker
from llmjobs.operation_steps import note_failure, step
from llmjobs.operation_verbs import VERBS
from llmjobs.sql import load
from llmjobs.time_limits import TooSlow, time_limit

IN_REQUEST_MAX = 500  # so many are carried out where they are asked for
IN_REQUEST_S = 5.0  # or as many as fit; the rest goes on in the background
ITEMS_MAX = 1_000_000  # the largest backlog
START_S = 20.0  # to find the jobs
HELP_S = 0.5  # of a page's poll
UNATTENDED_S = 5.0  # nobody stepped for so long, though it was due


def start(
    verb: str,
    jobs: QuerySet[Job] | Sequence[int],
    *,
    user: Any,
    reason: str = "",
    params: Mapping[str, Any] | None = None,
    rate_per_s: float | None = None,
    selection: str = "",
    token: UUID | None = None,
) -> Operation:
    """The operation, carried out already where it is small. The same `token` again gives the one that it began.

    `jobs`: what its statement finds now; what comes to match later stays out. `selection`: the same in words.
    Raises InvalidRequest: of the verb's parameters, or where there are too many jobs to find in time (param `jobs`).
    """
    asked = VERBS[verb]
    if rate_per_s is not None and not 0 < rate_per_s <= ITEMS_MAX:
        raise InvalidRequest(f"expected a rate from 0 to {ITEMS_MAX:,} a second, got {rate_per_s}", param="rate_per_s")
    fields = {
        "verb": verb, "params": asked.check(params or {}), "reason": reason, "selection": selection,
        "rate_per_s": rate_per_s, **_by(user), **({"token": token} if token else {}),
    }  # fmt: skip
    try:
        with transaction.atomic():
            operation = Operation.objects.create(**fields)
            _fix(operation, _add_items(operation, jobs))
            operation_history.begun(operation)
    except IntegrityError:
        if token is None:
            raise
        return _answered_before(token, fields)
    if operation.total <= IN_REQUEST_MAX and rate_per_s is None:
        carry_out(operation.pk, within_s=IN_REQUEST_S)
    operation.refresh_from_db()
    return operation


def _answered_before(token: UUID, fields: Mapping[str, Any]) -> Operation:
    """A second click gets what the first one began. A form that was gone back to, and answered otherwise, is told."""
    operation = Operation.objects.get(token=token)
    if any(getattr(operation, name) != fields[name] for name in ("params", "rate_per_s")):
        raise InvalidRequest(
            "This form was sent before, with another answer, which was carried out. Nothing was done now: send it "
            "again to have this done too.",
            param="token",
        )
    return operation


def undo(operation_id: int, *, user: Any, reason: str = "") -> Operation:
    """The operation that undoes it. Raises NotAllowed, with the reason why it can't be."""
    with transaction.atomic():
        undone = Operation.objects.select_for_update().get(pk=operation_id)
        if why := undo_refused(undone):
            raise NotAllowed(why)
        operation = Operation.objects.create(
            verb=undone.verb, undoes=undone, params=undone.params, reason=reason, selection=f"changed by {undone.pk}",
            **_by(user),
        )  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute(load("operation_undo_items"), {"id": operation.pk, "undoes": undone.pk})
            _fix(operation, cursor.rowcount)
        operation_history.begun(operation)
    if operation.total <= IN_REQUEST_MAX:
        carry_out(operation.pk, within_s=IN_REQUEST_S)
    operation.refresh_from_db()
    return operation


def undo_refused(operation: Operation) -> str:
    """Why it can't be undone, or ""."""
    verb = VERBS.get(operation.verb)
    if verb is None or verb.undo is None or operation.undoes_id is not None:
        return "An undo is not undone: do it again." if operation.undoes_id else verb.undo_note if verb else "Unknown."
    if not operation.is_over:
        return "Stop it first."
    if hasattr(operation, "undone_by"):
        return "It was undone before."
    if operation.is_forgotten:
        return "It is too long ago: which jobs it changed is not known any more."
    return "" if operation.changed else "It changed nothing."


def stop(operation_id: int, *, user: Any) -> bool:
    """Ends it between two batches. What was done stays done. False: it was over."""
    running = Operation.objects.filter(pk=operation_id, state=OperationState.RUNNING)
    with transaction.atomic():
        is_stopped = running.update(state=OperationState.STOPPED, finished_at=Now()) > 0
        if is_stopped:
            operation_history.note(Operation.objects.get(pk=operation_id), user, "Stopped")
    return is_stopped


def resume(operation_id: int, *, user: Any) -> bool:
    """Goes on where it was stopped, or failed. False: it runs, is done, or was undone meanwhile."""
    with transaction.atomic():
        operation = Operation.objects.select_for_update(no_key=True).get(pk=operation_id)
        if not may_resume(operation):
            return False
        Operation.objects.filter(pk=operation_id).update(
            state=OperationState.RUNNING, finished_at=None, failures=0, error="", next_at=Now()
        )
        operation_history.note(operation, user, "Resumed")
    return True


def may_resume(operation: Operation) -> bool:
    is_halted = operation.state in (OperationState.STOPPED, OperationState.FAILED) and not operation.is_forgotten
    return is_halted and not hasattr(operation, "undone_by")


def carry_out(operation_id: int, *, within_s: float) -> None:
    """Batch after batch without a pause, to the end or for so long. A gradual one keeps its pace."""
    until = time.monotonic() + within_s
    try:
        while step(operation_id, is_hasty=True) and time.monotonic() < until:
            pass
    except (DatabaseError, TransactionEnded) as error:
        if connection.in_atomic_block:  # the caller's, which is lost with it
            raise
        note_failure(operation_id, type(error).__name__)
    if connection.get_autocommit():  # where no worker counts, what is to be counted would pile up
        counts.help_count(least=counts.HELP_CHANGES)
        tallying.help_tally(least=counts.HELP_CHANGES)


def help_along(operation_id: int) -> None:
    """For a page that is looked at: where no worker works it off, the page does."""
    lives = Worker.objects.filter(stopped_at=None, heartbeat_at__gt=Now() - timedelta(seconds=conf.lease_s))
    unattended = Q(next_at__lt=Now() - timedelta(seconds=UNATTENDED_S))
    due = Operation.objects.filter(pk=operation_id, state=OperationState.RUNNING, next_at__lte=Now())
    if not lives.exists() or due.filter(unattended).exists():
        carry_out(operation_id, within_s=HELP_S)


# The jobs.


def _add_items(operation: Operation, jobs: QuerySet[Job] | Sequence[int]) -> int:
    chosen = jobs if isinstance(jobs, QuerySet) else Job.objects.filter(pk__in=list(jobs))
    try:
        statement, params = unordered(chosen).values("pk").query.sql_with_params()
    except EmptyResultSet:  # a filter that can match nothing
        return 0
    text = load("operation_items").replace("/*selection*/", statement)
    try:
        with time_limit(START_S, using="default"), connection.cursor() as cursor:
            cursor.execute(text, [operation.pk, *params, ITEMS_MAX + 1])
            found = cursor.rowcount
    except TooSlow:
        raise InvalidRequest(
            f"These jobs could not be found within {START_S:g} s: narrow them by a client, a model or a date.",
            param="jobs",
        ) from None
    if found > ITEMS_MAX:
        raise InvalidRequest(f"These are more than {ITEMS_MAX:,} jobs: narrow them first.", param="jobs")
    return found


def unordered(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """An order costs a sort, and means something only where there is a limit."""
    return jobs if jobs.query.is_sliced else jobs.order_by()


def _fix(operation: Operation, total: int) -> None:
    fields: dict[str, Any] = {"total": total}
    if not total or VERBS[operation.verb].kind == "stream":
        fields |= {"state": OperationState.DONE, "finished_at": Now()}
    Operation.objects.filter(pk=operation.pk).update(**fields)
    operation.total = total


def _by(user: Any) -> dict[str, Any]:
    return {"user_id": user.pk if user else None, "username": user.get_username()[:150] if user else ""}
