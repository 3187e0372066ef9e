"""What operators do to jobs, and cancel, which clients do too: over Django's connection, in the caller's transaction.

Owns these verbs; callers find them in `queue.py`. Each takes ids of jobs, locks them in the order of their ids, leaves
alone what it may not touch, and returns the ids that it changed, in any order. Does not own who may do what, and writes
no history: the admin does. Invariant: a job that leaves or enters a lane is told to the claims by the inbox, in the
same transaction; a claim that has seen it in its old lane does not start it there.

A requeue is an operator's word: no limit of what may wait holds it up. Only an edited request is held against the
budget.
"""

import json
from collections.abc import Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction

from llmjobs import drafts, handlers, limits
from llmjobs.catalog import pool_for
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, JobNotFound, NotAllowed
from llmjobs.events import EVENTS_CHANNEL, WORK_CHANNEL, Wake, wake_on_commit
from llmjobs.models import Job, JobRequest
from llmjobs.sql import load
from llmjobs.states import DEAD_LETTERS, REQUEUEABLE, TERMINAL, WAITING, Priority
from llmjobs.submissions import Submission


def cancel(
    job_ids: Iterable[int], *, client_id: int | None = None, even_dead: bool = False, calls_handlers: bool = True
) -> list[int]:
    """Cancel waiting jobs at once; ask the workers of running ones to abort. Idempotent. Returns the ids it changed.

    `even_dead`: dead and failed jobs too, which an operator gives up: `cancelled` is one more end of theirs, of which
    viewers, webhooks and handlers hear. The handlers of those that it ends are called in the same transaction, before
    it returns; or else (`calls_handlers`) workers call them after it.
    """
    ids, is_ours = list(job_ids), connection.get_autocommit()
    changed: list[int] = []
    if not calls_handlers:
        return _cancel(ids, client_id, even_dead, calls_handlers=False)
    if is_ours:  # what needs no handler does not wait for those of others
        ends = WAITING | DEAD_LETTERS if even_dead else WAITING
        with_handlers = set(
            Job.objects.filter(id__in=ids, has_handler=True, state__in=ends).values_list("id", flat=True)
        )
        others = [job_id for job_id in ids if job_id not in with_handlers]
        changed = _cancel(others, client_id, even_dead, calls_handlers=True)
        ids = [job_id for job_id in ids if job_id in with_handlers]
    if not ids:
        return changed
    try:
        return changed + _cancel(ids, client_id, even_dead, calls_handlers=True)
    except handlers.TransactionEnded:
        if not is_ours:
            raise
        return changed + _cancel(ids, client_id, even_dead, calls_handlers=False)  # a worker calls them


def _cancel(ids: list[int], client_id: int | None, even_dead: bool, *, calls_handlers: bool) -> list[int]:
    with transaction.atomic():
        rows = _rows("cancel", ids=ids, client_id=client_id, even_dead=even_dead)
        ended = [row for row in rows if row[3] != "running"]
        running = [row for row in rows if row[3] == "running"]
        wake_on_commit(
            (EVENTS_CHANNEL, [Wake(job_id, owner, seq) for job_id, owner, seq, *_ in ended]),
            (WORK_CHANNEL, [f"cancel:{job_id}:{attempt}" for job_id, _, _, _, attempt, _ in running]),
        )
        if calls_handlers:
            handlers.call_ended([job_id for job_id, *_, has_handler in ended if has_handler])
    return [row[0] for row in rows]


def requeue(job_ids: Iterable[int], *, pool_id: int | None = None, keeps_time: bool = False) -> list[int]:
    """Queue failed, dead, cancelled and expired jobs again, at the end of their lanes. Returns the ids it changed.

    `pool_id`: at another model, for good, as `move` does. `keeps_time`: what was to run later still is, for who takes
    a cancel back. Limits of what may wait don't refuse it.
    """
    rows = _rows("requeue", ids=list(job_ids), pool=pool_id, keeps_time=keeps_time)
    _wake([(job_id, owner, seq) for job_id, owner, seq, *_ in rows], {pool for *_, pool in rows})
    return [row[0] for row in rows]


def requeue_as(job_id: int, submission: Submission) -> list[int]:
    """Requeue one job with another request: model, priority, limits of its retries and estimates as a submit has them.

    `expires_in_s`, `dedupe`, `when_limited` have no meaning here: a deadline belongs to the life before. Its handler
    and its Idempotency-Key stay with it. See `asked_of` for what to edit. Raises JobNotFound; NotAllowed where
    a requeue would leave it alone; InvalidRequest and ModelNotFound as a submit; InsufficientQuota.
    """
    with transaction.atomic():
        jobs = Job.objects.select_for_update(no_key=True, of=("self",)).select_related("client__tier")
        job = jobs.filter(id=job_id).first()
        if job is None:
            raise JobNotFound(str(job_id))
        if job.state not in REQUEUEABLE:
            raise NotAllowed(f"expected a job that failed, or was cancelled or expired, got one that is {job.state}")
        if not JobRequest.objects.filter(job_id=job_id).exclude(body="").exists():
            raise NotAllowed("expected a job with its request, got one that was erased")
        if submission.on_settled is not None:
            handlers.check(submission.on_settled)
        row = drafts.row(job.client, submission, pool_for(submission.model, job.client), None)
        limits.refuse_over_budget(job.client, row)
        [(owner, seq, pool_id, _)] = _rows("requeue_as", id=job_id, job=json.dumps(row, ensure_ascii=False))
        _wake([(job_id, owner, seq)], {pool_id})
    return [job_id]


def asked_of(job: Job) -> dict[str, Any]:
    """What POST /api/jobs would be for this job, to be edited, parsed and given to `requeue_as`.

    Has the prompt: for who may see it. Raises NotAllowed where that was erased.
    """
    request = JobRequest.objects.filter(job_id=job.pk).first()
    if request is None or not request.body:
        raise NotAllowed("expected a job with its request, got one that was erased")
    asked: dict[str, Any] = {
        "model": (job.home or job.pool).name,
        "endpoint": job.endpoint,
        "body": json.loads(request.body),
        "priority": Priority(job.priority).word,
        "max_attempts": job.max_attempts,
        "timeout_s": job.timeout_s,
        "retry_for_s": job.retry_for_s,
        "max_cost_usd": None if request.max_cost_usd is None else float(request.max_cost_usd),
        "on_interrupt": "keep" if job.keeps_partial else None,
        "webhook_url": request.webhook_url,
        "user": request.user,
        "metadata": request.metadata or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def reprioritize(job_ids: Iterable[int], priority: int) -> list[int]:
    """Give waiting jobs another priority: in their new lane they stand by their age. Returns the ids it changed.

    A running job goes on, and comes back there if it comes back. Left alone are those whose client's tier does not
    allow it (`Tier.max_priority`), for operators too: they change the tier. Raises InvalidRequest for no priority.
    """
    if priority not in list(Priority):
        expected = ", ".join(f"{int(one)} ({one.word})" for one in Priority)
        raise InvalidRequest(f"expected one of {expected}, got {priority!r}", param="priority")
    word = Priority(priority).word
    rows = _rows("reprioritize", ids=list(job_ids), priority=int(priority), word=word)
    _wake([(job_id, owner, seq) for job_id, owner, seq, _ in rows], {pool_id for *_, pool_id in rows})
    return [row[0] for row in rows]


def move(job_ids: Iterable[int], pool_id: int) -> list[int]:
    """Move waiting jobs to another model, for good: it is what they ask for from now on. Returns the ids it changed.

    Left alone are those that its context is too small for. What is over is moved by its requeue, which takes `pool_id`
    too. Nothing is known of which endpoints a model has: one that it lacks fails there.
    """
    rows = _rows("move", ids=list(job_ids), pool=pool_id)
    _wake([(job_id, owner, seq) for job_id, owner, seq in rows], {pool_id})
    return [row[0] for row in rows]


def discard(job_ids: Iterable[int]) -> list[int]:
    """Take dead letters out of the list; the jobs stay dead or failed. Returns the ids it changed."""
    return [row[0] for row in _rows("discard", ids=list(job_ids))]


def restore(job_ids: Iterable[int]) -> list[int]:
    """Take a discard back: dead and failed jobs are dead letters again. Returns the ids it changed."""
    return [row[0] for row in _rows("restore", ids=list(job_ids))]


def erase(job_id: int) -> None:
    """Remove a finished job's request, output and events; the job's row, its usage and cost, and its ledger stay.

    Gone too is what may quote these: the words of errors. An Idempotency-Key finds the job for as long as before; a
    webhook or a handler that is still to be told gets the job without them.
    Raises JobNotFound, or NotAllowed while the job is not finished.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).filter(id=job_id).first()
        if job is None:
            raise JobNotFound(str(job_id))
        if job.state not in TERMINAL:
            raise NotAllowed(f"expected a finished job, got one that is {job.state}")
        _erase([job_id])


def erase_many(job_ids: Iterable[int]) -> list[int]:
    """Erase those of these jobs that are finished. Returns their ids, of such as were erased before too."""
    with transaction.atomic():
        jobs = Job.objects.select_for_update(no_key=True).filter(id__in=list(job_ids), state__in=TERMINAL)
        ids = list(jobs.order_by("id").values_list("id", flat=True))
        _erase(ids)
    return ids


def _erase(ids: list[int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(load("erase"), {"ids": ids, "key_kept_s": conf.idempotency_keep_s})


def unblock(pool_ids: Iterable[int]) -> None:
    """Try a call at once where a pool or its account is blocked: an operator has mended what it was blocked by."""
    ids = list(pool_ids)
    with connection.cursor() as cursor:
        cursor.execute(load("unblock"), {"pools": ids})
    wake_on_commit((WORK_CHANNEL, [f"pool:{pool_id}" for pool_id in ids]))


acancel = sync_to_async(cancel)
arequeue = sync_to_async(requeue)


def _rows(statement: str, **params: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(load(statement), params)
        return cursor.fetchall()


def _wake(events: Iterable[tuple[int, int, int | None]], pools: Iterable[int]) -> None:
    """Viewers of (job, client, first event), and who claims in these pools."""
    wake_on_commit(
        (EVENTS_CHANNEL, [Wake(job_id, owner, seq) for job_id, owner, seq in events if seq is not None]),
        (WORK_CHANNEL, sorted(f"pool:{pool_id}" for pool_id in pools)),
    )
