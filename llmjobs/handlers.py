"""Functions of the host project that are told of a job's end: `on_settled="myapp.handlers.save_summary"`.

    def save_summary(job: Job) -> None    # job: loaded with its result, terminal, unless it was requeued since

Owns what a handler is, how one is called, and what becomes of the call, which is a row of HandlerCall that a trigger
wrote in the transaction that ended the job. Does not own when: `queue.py` calls inside the transaction that ends a job
(a worker's settle, a cancel), `host_calls.py` calls what is left in a transaction a call, until it succeeds.

Invariant: what a handler writes to the database commits together with its row's `done`, so exactly once. What it does
elsewhere may happen again. One that raises takes nothing with it but its own writes: the job's end stands, the call
comes again after a backoff, and is dead-lettered by itself after `conf.handler_tries_max`.
"""

import hashlib
import inspect
import logging
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest
from llmjobs.models import HandlerCall, Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.models.outbox import CallState
from llmjobs.outcomes import backoff_s
from llmjobs.submissions import Submission

logger = logging.getLogger("llmjobs.handlers")

PATH_CHARS_MAX = 255
ERROR_CHARS_MAX = 500
CALLED_AT_ONCE_MAX = 50  # a savepoint each: past 64 of a transaction Postgres looks them up on disk


def attached(submission: Submission, path: str) -> Submission:
    """The same submission, whose end is told to the function at `path`. Submitting it checks the path.

    An Idempotency-Key that comes again with another handler came with another submission.
    """
    told = hashlib.sha256(f"{submission.fingerprint}\n{path}".encode("utf-8", "surrogatepass")).hexdigest()
    return replace(submission, on_settled=path, fingerprint=told)


def check(path: Any) -> None:
    """Raises InvalidRequest unless `path` leads to a function that can be called from a transaction."""
    if not isinstance(path, str):
        raise _refused(f"a {type(path).__name__}", code="invalid_type")
    if not 0 < len(path) <= PATH_CHARS_MAX:
        raise _refused(f"{len(path)} characters, where 1 to {PATH_CHARS_MAX} are allowed", code="invalid_length")
    try:
        found = import_string(path)
    except Exception as error:  # importing a host's module raises what that module likes
        raise _refused(f"{path!r}, which can't be imported ({line(error)})") from error
    if not callable(found):
        raise _refused(f"{path!r}, which is a {type(found).__name__}")
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds for function in (found, getattr(found, "__call__", None))):  # noqa: B004 (its kind matters)
        raise _refused(f"{path!r}, which is async or a generator, and does not do its work when it is called")


def _refused(came: str, *, code: str = "invalid_value") -> InvalidRequest:
    expected = "expected the dotted path of a function, such as myapp.handlers.save_summary"
    return InvalidRequest(f"{expected}, got {came}", param="on_settled", code=code)


# Calling, in the caller's transaction.


def call_ended(job_ids: Sequence[int]) -> None:
    """Tell of jobs that the caller's transaction has just ended; past CALLED_AT_ONCE_MAX the workers do it after it."""
    if not job_ids:
        return
    ended = HandlerCall.objects.filter(job_id__in=job_ids, epoch=F("job__epoch"), state=CallState.PENDING, tries=0)
    for call in ended.order_by("id")[:CALLED_AT_ONCE_MAX]:
        _call(call, 1)


def call_again(call_id: int, number: int) -> bool:
    """Make call `number`, the first being 1, of a row that was taken for it. False: somebody else has it by now.

    The job may have been requeued since it ended so: the handler gets it as it is.
    """
    taken = HandlerCall.objects.select_for_update(skip_locked=True, no_key=True)
    call = taken.filter(pk=call_id, state=CallState.PENDING, tries=number).first()
    if call is not None:
        _call(call, number)
    return call is not None


def revive(call_ids: Sequence[int]) -> int:
    """Call dead ones again, from the first try on. Returns how many."""
    dead = HandlerCall.objects.filter(pk__in=call_ids, state=CallState.DEAD)
    return dead.update(state=CallState.PENDING, tries=0, next_at=Now(), ended_at=None)


def _call(call: HandlerCall, number: int) -> None:
    job = Job.objects.select_related(*JOB_RELATED).filter(pk=call.job_id).first()
    pending = HandlerCall.objects.filter(pk=call.pk, state=CallState.PENDING)
    if job is None:
        pending.update(state=CallState.DEAD, ended_at=Now(), tries=number, error="The job was removed before.")
        return
    try:
        _run(call.handler, job)
    except TransactionEnded:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C, or a server's own way to stop: not the handler's
        names = (job.public_id, call.handler, number)
        # Where and what kind: what an exception says may quote the job.
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("event=handler_raised job=%s handler=%s try=%s kind=%s\n%s", *names, type(error).__name__, frames)
        if connection.needs_rollback:  # its savepoint could not be rolled back
            raise TransactionEnded(f"{call.handler} ended the transaction that it was called in") from error
        if number >= conf.handler_tries_max:
            logger.error("event=handler_dead job=%s handler=%s tries=%s", *names)
            pending.update(state=CallState.DEAD, ended_at=Now(), tries=number, error=line(error))
        else:
            pending.update(next_at=Now() + timedelta(seconds=wait_s(number)), tries=number, error=line(error))
    else:
        pending.update(state=CallState.DONE, ended_at=Now(), tries=number, error=None)


class TransactionEnded(Exception):
    """A handler closed the connection, or ended the transaction that it was called in: nothing of it stands."""


class Misused(Exception):
    """A handler left the transaction so that its writes must be taken back."""


def _run(path: str, job: Job) -> None:
    """In a savepoint, which goes if the handler raises. Raises what it raised, and what it hid.

    It may close the connection, leave a block of atomic open, ask for a rollback, break a constraint that is looked at
    on commit: each would otherwise end the transaction around it, or lose the handler's writes without a word.
    """
    handler, before = import_string(path), connection.connection
    with transaction.atomic():
        ids, blocks = list(connection.savepoint_ids), list(connection.atomic_blocks)
        try:
            answer = handler(job)
        finally:
            is_lost = connection.closed_in_transaction or not connection.in_atomic_block
            if is_lost or connection.connection is not before:
                raise TransactionEnded(f"{path} closed the connection that it was called with")
            has_left_open = connection.savepoint_ids != ids
            connection.savepoint_ids[:], connection.atomic_blocks[:] = ids, blocks
        if has_left_open:
            raise Misused("expected every transaction.atomic() of the handler's to be left, got one that is open")
        if connection.needs_rollback:
            raise Misused("expected a handler to raise for a rollback, got set_rollback(True)")
        if inspect.isawaitable(answer) or inspect.isgenerator(answer) or inspect.isasyncgen(answer):
            getattr(answer, "close", lambda: None)()
            raise Misused("expected a function that does its work when it is called, got an async one or a generator")
        connection.check_constraints()


def wait_s(number: int) -> float:
    """How long after try `number` the next one is due."""
    return backoff_s(number, base_s=conf.backoff_base_s, cap_s=conf.backoff_cap_s)


def line(error: BaseException) -> str:
    """An exception's class and the first line of what it says, as Postgres can keep it. Its details may quote rows."""
    said = str(error).replace("\0", "").strip().partition("\n")[0].strip()
    words = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return words.encode("utf-8", "replace").decode()[:ERROR_CHARS_MAX]
