"""Submit: one call, or many, become jobs in the caller's transaction (Django's connection).

Owns the order of things: who is asked before a job is made (joining.py), what refuses it (limits.py), the one statement
that makes it, and who is woken once it is committed. Does not own what a submission may say (submissions.py), nor what
is written of it (drafts.py). Invariant: a job exists with its request, its first event and its inbox row, or not at
all.
"""

import json
from collections.abc import Sequence
from typing import Any, Unpack

from asgiref.sync import sync_to_async
from django.db import IntegrityError, connection, transaction

from llmjobs import counts, drafts, handlers, joining, limits, submissions, tracing
from llmjobs.catalog import pool_for
from llmjobs.conf import conf
from llmjobs.database import prepared_cursor
from llmjobs.errors import InvalidRequest
from llmjobs.events import EVENTS_CHANNEL, WORK_CHANNEL, Wake, wake_on_commit
from llmjobs.job_fields import JobFields
from llmjobs.models import Client, Job
from llmjobs.sql import load
from llmjobs.submissions import Submission


def submit(
    *,
    client: Client | str,
    idempotency_key: str | None = None,
    on_settled: str | None = None,
    **fields: Unpack[JobFields],
) -> Job:
    """Submit one call; takes part in the caller's transaction. `fields` are those of POST /api/jobs.

    `on_settled`: the dotted path of a function that is called with the job in the transaction that ends it: see
    handlers.py.
    With dedupe="join" the client's own equal job is returned, if one has not ended. In a transaction, others who submit
    with that key, or join equal jobs, are told IdempotencyInProgress until its end.
    Raises InvalidRequest (with `param`), ModelNotFound, IdempotencyKeyReused, and what limits.py refuses: QueueFull,
    InsufficientQuota, RateLimitExceeded. Inside a transaction these are raised as far as can be seen then; what others
    submit before its commit may still take the room, and then the commit itself fails, with a django.db.DatabaseError
    whose `__cause__.sqlstate` is limits.SQLSTATE.
    """
    submission = submissions.parse(fields)
    if on_settled is not None:
        submission = handlers.attached(submission, on_settled)
    job, _ = submit_submission(owner_of(client), submission, idempotency_key)
    return job


async def asubmit(
    *,
    client: Client | str,
    idempotency_key: str | None = None,
    on_settled: str | None = None,
    **fields: Unpack[JobFields],
) -> Job:
    """Like submit, in a transaction of its own: an async caller has none that it could join."""
    return await sync_to_async(submit)(client=client, idempotency_key=idempotency_key, on_settled=on_settled, **fields)


def owner_of(client: Client | str) -> Client:
    """A client with its tier, by itself or by its name. Raises Client.DoesNotExist."""
    return client if isinstance(client, Client) else Client.objects.select_related("tier").get(name=client)


def submit_submission(
    client: Client,
    submission: Submission,
    idempotency_key: str | None = None,
    *,
    api_key_id: int | None = None,
    retry_count: int | None = None,
    traceparent: str | None = None,
) -> tuple[Job, bool]:
    """The job, and whether it is an earlier submit's: by the same key, by an SDK's retry, by dedupe (joining.py).

    `api_key_id`: the key that it came with; `retry_count`: the SDK's, 0 at its first try; `traceparent`: the caller's,
    as of tracing.parsed. An earlier job is answered before limits are looked at.
    """
    is_inside = not connection.get_autocommit()
    asked = joining.Asked(client, submission, idempotency_key, api_key_id, retry_count)
    if not asked.may_join:
        with limits.told(client):
            new = _submit(client, [submission], look_before=is_inside, api_key_id=api_key_id, traceparent=traceparent)
        return new[0], False
    if idempotency_key is not None:
        submissions.check_idempotency_key(idempotency_key)
    if (job := asked.made_with_key()) is not None:
        return job, True
    try:
        with limits.told(client), joining.told_in_progress(), transaction.atomic(), joining.short_waits():
            if (job := asked.made_before()) is not None:
                return job, True
            [job] = _submit(
                client,
                [submission],
                [idempotency_key],
                look_before=is_inside,
                api_key_id=api_key_id,
                traceparent=traceparent,
            )
        return job, False
    except IntegrityError:
        if (job := asked.made_with_key()) is None:
            raise
        return job, True


def submit_submissions(client: Client, asked: Sequence[Submission], keys: Sequence[str | None] = ()) -> list[Job]:
    """Submit many in one statement, in order. The jobs come with pool, client and tier, without request and result.

    `asked`: of submissions.parse, and of handlers.attached for what submit has as `on_settled`.
    All or none: QueueFull, say, is that there is not room for all of them. See submit for what a transaction changes.
    """
    for submission in asked:
        refuse_join(submission)
    with limits.told(client):
        return _submit(client, asked, keys, look_before=not connection.get_autocommit())


def refuse_join(submission: Submission) -> None:
    """Of one among many: who may join makes no job, and the statement of many makes one for each."""
    if submission.joins:
        raise InvalidRequest('expected "none" among many, got "join": submit that one by itself', param="dedupe")


def _submit(
    client: Client,
    asked: Sequence[Submission],
    keys: Sequence[str | None] = (),
    *,
    look_before: bool,
    api_key_id: int | None = None,
    traceparent: str | None = None,
) -> list[Job]:
    for path in {submission.on_settled for submission in asked} - {None}:
        handlers.check(path)
    pools = {name: pool_for(name, client) for name in {submission.model for submission in asked}}
    made_of = [
        drafts.draft(client, submission, pools[submission.model], keys[index] if keys else None, api_key_id)
        for index, submission in enumerate(asked)
    ]
    made = insert(client, made_of, look_before=look_before, traceparent=traceparent)
    return [drafts.made(client, draft.pool, draft.row, values) for draft, values in zip(made_of, made, strict=True)]


def insert(
    client: Client, asked: Sequence[drafts.Draft], *, look_before: bool, traceparent: str | None = None
) -> list[tuple[Any, ...]]:
    """The one statement that makes jobs, and who is woken for them. `look_before`: at the limits, before it.

    Returns a row a job: id, public_id, state, and what else submit.sql returns.
    """
    rows = [draft.row for draft in asked]
    is_rejected = any(row["is_rejected_when_limited"] for row in rows)
    with tracing.submitting(client, rows, [draft.submission.model for draft in asked], traceparent):
        if look_before or is_rejected:  # who hammers at a limit shall not leave a dead row each time
            limits.refuse_if_full(client, rows)
        params = {
            "jobs": json.dumps(rows, ensure_ascii=False), "backlog_max": conf.backlog_max,
            "client_id": client.pk, "is_rejected": is_rejected,
        }  # fmt: skip
        with prepared_cursor() as cursor:
            cursor.execute(load("submit"), params)
            made: list[tuple[Any, ...]] = cursor.fetchall()
    wake_on_commit(
        (WORK_CHANNEL, sorted({f"pool:{draft.pool.id}" for draft in asked})),
        (EVENTS_CHANNEL, [Wake(job_id, client.id, 1 << 20) for job_id, *_ in made]),
    )
    counts.help_on_commit([job_id for job_id, *_ in made])
    return made
