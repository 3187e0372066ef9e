"""Submit many at once: all of them become jobs, in order and in one transaction, or none does.

Owns what `queue.submit_many` promises beside `submit`: which of many an error is about, and that a key that came
before is answered with its job. Does not own how jobs are made: submitting.py does, all new ones in one statement.
Invariant: what is returned has a job for each that was asked for, in the order in which they were.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction

from llmjobs import drafts, handlers, joining, limits, submissions
from llmjobs.catalog import pool_for
from llmjobs.errors import IdempotencyKeyReused, InvalidRequest
from llmjobs.job_fields import ManyJobFields
from llmjobs.models import Client, Job, JobRequest
from llmjobs.submissions import Submission
from llmjobs.submitting import owner_of, refuse_join, submit_submissions

MANY_MAX = 10_000  # in one call: they are checked, written and refused together
OWN_FIELDS = ("idempotency_key", "on_settled")  # beside those of POST /api/jobs
TRIES = 2  # with keys: somebody else may make one of these jobs in between

Error = TypeVar("Error", bound=InvalidRequest)
Slot = str | int  # what makes a job one of its own: its key, or its place


def submit_many(*, client: Client | str, jobs: Iterable[ManyJobFields]) -> list[Job]:
    """Submit up to MANY_MAX calls: all of them, or none. Takes part in the caller's transaction.

    Each has the fields of `submit`, but dedupe="join", which is for one by itself. Where a key came before, its first
    job is returned. Raises what `submit` raises; an error of one of them names it (`param` is "jobs[3].priority"), one
    of all together, such as QueueFull, does not.
    """
    owner, asked, keys = owner_of(client), list[Submission](), list[str | None]()
    for at, fields in enumerate(jobs):
        if at == MANY_MAX:
            raise InvalidRequest(f"expected at most {MANY_MAX:,} jobs, got more", param="jobs", code="too_many")
        try:
            submission, key = _read(fields)
        except InvalidRequest as error:
            raise _named(error, at) from None
        asked.append(submission)
        keys.append(key)
    try:
        return _submit_once(owner, asked, keys) if any(keys) else submit_submissions(owner, asked)
    except InvalidRequest as error:
        if error.param is not None and not error.param.startswith("jobs["):
            for place, submission in enumerate(asked):
                if _is_refused(owner, submission):
                    raise _named(error, place) from None
        raise


async def asubmit_many(*, client: Client | str, jobs: Iterable[ManyJobFields]) -> list[Job]:
    """Like submit_many, in a transaction of its own: an async caller has none that it could join."""
    return await sync_to_async(submit_many)(client=client, jobs=jobs)


def _read(fields: Any) -> tuple[Submission, str | None]:
    own = {name: fields.get(name) for name in OWN_FIELDS} if isinstance(fields, Mapping) else {}
    submission = submissions.parse({name: fields[name] for name in fields if name not in own} if own else fields)
    refuse_join(submission)
    if (key := own["idempotency_key"]) is not None:
        submissions.check_idempotency_key(key)
    if (path := own["on_settled"]) is not None:
        handlers.check(path)
        submission = handlers.attached(submission, path)
    return submission, key


def _submit_once(client: Client, asked: Sequence[Submission], keys: Sequence[str | None]) -> list[Job]:
    """With keys: a second time where somebody else made one of these jobs meanwhile."""
    for tries_left in range(TRIES - 1, -1, -1):
        try:
            with limits.told(client), joining.told_in_progress(), transaction.atomic(), joining.short_waits():
                return _submit_new(client, asked, keys)
        except IntegrityError:
            if not tries_left:
                raise
    raise AssertionError("expected the last try to have returned or raised")


def _submit_new(client: Client, asked: Sequence[Submission], keys: Sequence[str | None]) -> list[Job]:
    jobs: dict[Slot, Job] = _made_before(client, asked, keys)
    slots: list[Slot] = [at if key is None else key for at, key in enumerate(keys)]
    new: dict[Slot, int] = {}  # the first place of each
    for at, slot in enumerate(slots):
        if slot not in jobs and asked[new.setdefault(slot, at)].fingerprint != asked[at].fingerprint:
            words = f"expected the fields of jobs[{new[slot]}], which has this key too, got others"
            raise _named(IdempotencyKeyReused(words, param="idempotency_key", code="idempotency_key_reused"), at)
    places = list(new.values())
    if places:
        made = submit_submissions(client, [asked[at] for at in places], [keys[at] for at in places])
        jobs |= dict(zip(new, made, strict=True))
    return [jobs[slot] for slot in slots]


def _made_before(client: Client, asked: Sequence[Submission], keys: Sequence[str | None]) -> dict[Slot, Job]:
    """The jobs of those keys that came before. One question for all keys, two more for each that is known."""
    wanted = {key for key in keys if key is not None}
    known = set(
        JobRequest.objects.filter(client=client, idempotency_key__in=wanted).values_list("idempotency_key", flat=True)
    )
    jobs: dict[Slot, Job] = {}
    for at, key in enumerate(keys):
        if key is None or key not in known:
            continue
        try:
            job = joining.Asked(client, asked[at], key).made_with_key()
        except IdempotencyKeyReused as error:
            error.param = "idempotency_key"
            raise _named(error, at) from None
        if job is not None:
            jobs[key] = job
    return jobs


def _is_refused(client: Client, submission: Submission) -> bool:
    """By itself: for its model, or for its tier. Looked at only once something was refused."""
    try:
        drafts.row(client, submission, pool_for(submission.model, client), None)
    except InvalidRequest:
        return True
    return False


def _named(error: Error, at: int) -> Error:
    error.param = f"jobs[{at}]" if error.param is None else f"jobs[{at}].{error.param}"
    return error
