"""One batch of an operation, and what is written about it.

Invariant: both commit together, so a crash repeats nothing and loses nothing; one process a time is at an operation,
who holds its row. A batch waits for no job: one that somebody else holds is passed by, and tried again when all others
are done. One that fails is tried again in eighths, down to the job that it fails for, which is left alone.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest, Now

from llmjobs import operation_history
from llmjobs.errors import LlmjobsError
from llmjobs.handlers import CALLED_AT_ONCE_MAX
from llmjobs.models import Job, Operation, OperationItem, OperationState
from llmjobs.operation_verbs import Found, act_of
from llmjobs.sql import load
from llmjobs.states import State

BATCH = 500  # bounds the locks of one transaction, and what others wait for
ROUNDS_MAX = 6  # of jobs that others hold: half a minute of tries
ROUND_BASE_S, PAUSE_MAX_S = 0.5, 1.0
SHRINK, FAILURES_MAX = 8, 20  # a batch that fails is tried in eighths, down to the one job that it fails for
FAILED_BASE_S, FAILED_CAP_S = 0.1, 30.0
CHANGED, GONE, HELD = "changed", "removed", "held by another transaction"
REASON_CHARS_MAX, ERROR_CHARS_MAX = 120, 500


def step(operation_id: int, *, is_hasty: bool = False) -> bool:
    """Carry out the next batch. False: there was none to be done now; it is over, not due, or somebody is at it.

    `is_hasty`: without the pause between two batches.
    """
    began_at = time.monotonic()
    with transaction.atomic():
        running = Operation.objects.select_for_update(skip_locked=True, no_key=True)
        due = Q(next_at__lte=Now()) | (Q(rate_per_s=None, round=1, failures=0) if is_hasty else Q(pk=None))
        operation = running.filter(due, pk=operation_id, state=OperationState.RUNNING).first()
        if operation is None:
            return False
        size = _size(operation)
        rows = _picked(operation, size)
        batch = _act(operation, rows)
        if batch.did:
            _mark(operation, batch)
            operation_history.changed(operation, batch.changed)
        fields = _progress(operation, rows, batch) | _pace(operation, batch, time.monotonic() - began_at)
        if len(rows) < size and not batch.is_void and "state" not in fields:
            fields |= _end_of_round(operation)
        Operation.objects.filter(pk=operation.pk).update(**fields)
        if "finished_at" in fields:
            operation_history.ended(Operation.objects.get(pk=operation.pk))
    return True


@dataclass(slots=True)
class Batch:
    """What became of each job, and what the changed ones were. `error`: what the verb raised."""

    did: dict[int, str] = field(default_factory=dict)
    was: dict[int, str] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def changed(self) -> list[int]:
        return [job_id for job_id, what in self.did.items() if what == CHANGED]

    @property
    def is_void(self) -> bool:
        """Nothing of it stands: the same jobs again, fewer at once."""
        return self.error is not None and not self.did


def _picked(operation: Operation, size: int) -> list[Found | int]:
    """The next jobs, locked, by their ids; of one that is gone, or that somebody else holds, the id alone."""
    params = {"operation": operation.pk, "after_id": operation.done_to, "rows": size}
    with connection.cursor() as cursor:
        cursor.execute(load("pin_writes"))
        cursor.execute(load("operation_pick"), params)
        items = cursor.fetchall()
        cursor.execute(load("operation_hold"), {"ids": [job_id for job_id, *_ in items]})
        held = {job_id: (State(state), *columns) for job_id, state, *columns in cursor.fetchall()}
        cursor.execute(load("unpin_writes"))
    return [Found(job_id, *held[job_id], *of_item) if job_id in held else job_id for job_id, *of_item in items]


def _mark(operation: Operation, batch: Batch) -> None:
    marks: dict[str, Any] = {
        "operation": operation.pk,
        "ids": list(batch.did),
        "did": list(batch.did.values()),
        "was": [batch.was.get(job_id) for job_id in batch.did],
    }
    with connection.cursor() as cursor:
        cursor.execute(load("operation_mark"), marks)


def _act(operation: Operation, rows: Sequence[Found | int]) -> Batch:
    act = act_of(operation.verb, is_undo=operation.undoes_id is not None)
    params = {**operation.params, "is_small": operation.total <= CALLED_AT_ONCE_MAX and not operation.failures}
    batch = Batch(did=_passed_by(operation, [row for row in rows if isinstance(row, int)]))
    groups: dict[str | None, list[Found]] = defaultdict(list)
    for found in rows:
        if isinstance(found, int):
            continue
        if why := act.refuses(found, params):
            batch.did[found.job_id] = f"{found.state} ({why})"[:REASON_CHARS_MAX]
        else:
            groups[found.target].append(found)
    try:
        with transaction.atomic():
            for target, chosen in groups.items():
                changed = set(act.call([found.job_id for found in chosen], params, target))
                for found in chosen:
                    left = f"{found.state} ({act.missed})"[:REASON_CHARS_MAX]
                    batch.did[found.job_id] = CHANGED if found.job_id in changed else left
                    batch.was[found.job_id] = act.was(found, params)
    except (LlmjobsError, DatabaseError) as error:
        # A batch of one job that fails is that job's fault: it is left alone, and the others go on.
        return Batch({_id(rows[0]): f"failed ({type(error).__name__})"} if len(rows) == 1 else {}, error=error)
    return batch


def _passed_by(operation: Operation, job_ids: list[int]) -> dict[int, str]:
    """Those that are gone, and in the last round also those that others hold. The rest is tried again."""
    there = set(Job.objects.filter(pk__in=job_ids).values_list("pk", flat=True)) if job_ids else set()
    is_last = operation.round >= ROUNDS_MAX
    return {job_id: HELD if job_id in there else GONE for job_id in job_ids if is_last or job_id not in there}


def _id(row: Found | int) -> int:
    return row if isinstance(row, int) else row.job_id


def _size(operation: Operation) -> int:
    """A second's worth of a gradual one."""
    if operation.rate_per_s is None:
        return operation.batch
    return max(1, min(operation.batch, math.ceil(operation.rate_per_s)))


def _progress(operation: Operation, rows: Sequence[Found | int], batch: Batch) -> dict[str, Any]:
    fields: dict[str, Any] = {"failures": 0, "batch": min(BATCH, operation.batch * 2)}
    if batch.error is not None:
        words = f"{type(batch.error).__name__}: {str(batch.error).strip().partition(chr(10))[0]}"
        fields = _failed(operation, words) | {"batch": max(1, len(rows) // SHRINK)}
    if batch.is_void:
        return fields
    skipped = Counter(operation.skipped)
    skipped.update(what for what in batch.did.values() if what != CHANGED)
    return {
        "changed": operation.changed + len(batch.changed),
        "skipped": dict(skipped),
        "done_to": _id(rows[-1]) if rows else operation.done_to,
        "started_at": operation.started_at or Now(),
        "last_step_at": Now(),
        **fields,
    }


def _failed(operation: Operation, words: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"failures": operation.failures + 1, "error": words[:ERROR_CHARS_MAX]}
    if operation.failures + 1 >= FAILURES_MAX:
        fields |= {"state": OperationState.FAILED, "finished_at": Now()}
    return fields


def _pace(operation: Operation, batch: Batch, took_s: float) -> dict[str, Any]:
    """A gradual one makes up for a second at most. All others pause for as long as they took."""
    if batch.error is not None:
        return {"next_at": Now() + _backoff(operation.failures)}
    if operation.rate_per_s is None:
        return {"next_at": Now() + timedelta(seconds=min(took_s, PAUSE_MAX_S))}
    not_before = Greatest(F("next_at"), Now() - timedelta(seconds=1))
    return {"next_at": not_before + timedelta(seconds=len(batch.changed) / operation.rate_per_s)}


def _backoff(failures: int) -> timedelta:
    return timedelta(seconds=min(FAILED_CAP_S, FAILED_BASE_S * 2**failures))


def _end_of_round(operation: Operation) -> dict[str, Any]:
    """What others held is tried again, after a while that grows; where there is nothing left, it is done."""
    if OperationItem.objects.filter(operation_id=operation.pk, did=None).exists():
        wait_s = ROUND_BASE_S * 2 ** (operation.round - 1)
        return {"round": operation.round + 1, "done_to": 0, "next_at": Now() + timedelta(seconds=wait_s)}
    return {"state": OperationState.DONE, "finished_at": Now()}


def note_failure(operation_id: int, words: str) -> None:
    """A batch did not commit, for a reason that its own transaction could not write down."""
    with transaction.atomic():
        running = Operation.objects.select_for_update(skip_locked=True, no_key=True)
        operation = running.filter(pk=operation_id, state=OperationState.RUNNING).first()
        if operation is None:
            return
        fields = _failed(operation, words) | {"batch": max(1, operation.batch // SHRINK)}
        Operation.objects.filter(pk=operation_id).update(next_at=Now() + _backoff(operation.failures), **fields)
