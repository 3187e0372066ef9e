"""The verbs: the only writer of `Job.state`.

A verb is a file in `sql/` and a function here. Submit, cancel, requeue and erase use Django's connection and take part
in the caller's transaction; claim, settle, reclaim, stage and expire are the workers', over psycopg's async
connections. Every write to a running job names its lease, which is the job's id, the attempt's number and the worker;
who is not returned has lost it. Everybody appends to the inbox; only a claim, under the turnstile, writes flows and
lanes.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import dict_row

from llmjobs import submissions
from llmjobs.catalog import pool_for
from llmjobs.conf import conf
from llmjobs.errors import (
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidRequest,
    JobNotFound,
    NotAllowed,
)
from llmjobs.estimates import estimate
from llmjobs.events import EVENTS_CHANNEL, WORK_CHANNEL, Event, Wake, append, wake_on_commit
from llmjobs.ids import uuid7
from llmjobs.leases import Claim, Claimed, Settlement
from llmjobs.models import Client, Job, JobEvent, JobRequest, JobResult, Model
from llmjobs.sql import load
from llmjobs.states import TERMINAL, Priority
from llmjobs.submissions import Submission

SHARD = 1
CLAIM_SIZES = (1, 4, 16, 64, 256)  # literal limits in a few sizes, so that few plans exist
DUTY_ROWS = 500  # rows that a duty takes at once: its locks last milliseconds


# Submit, cancel, requeue, erase: Django's connection.


def submit(*, client: Client | str, idempotency_key: str | None = None, **fields: Any) -> Job:
    """Submit one call; takes part in the caller's transaction. `fields` are those of POST /api/jobs.

    Raises InvalidRequest (with `param`), ModelNotFound, IdempotencyKeyReused.
    """
    owner = client if isinstance(client, Client) else Client.objects.select_related("tier").get(name=client)
    job, _ = submit_submission(owner, submissions.parse(fields), idempotency_key)
    return job


async def asubmit(*, client: Client | str, idempotency_key: str | None = None, **fields: Any) -> Job:
    """Like submit, in a transaction of its own: an async caller has none that it could join."""
    return await sync_to_async(submit)(client=client, idempotency_key=idempotency_key, **fields)


def submit_submission(client: Client, submission: Submission, idempotency_key: str | None = None) -> tuple[Job, bool]:
    """The job, and whether it is a replay: the job that an equal request with the same key made before."""
    if idempotency_key is None:
        return submit_many(client, [submission])[0], False
    submissions.check_idempotency_key(idempotency_key)
    if (job := _submitted_before(client, idempotency_key, submission)) is not None:
        return job, True
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("select current_setting('lock_timeout')")
            [before] = cursor.fetchone()
            cursor.execute("set local lock_timeout = '2s'")  # another with this key may not have committed yet
            [job] = submit_many(client, [submission], [idempotency_key])
            cursor.execute("select set_config('lock_timeout', %s, true)", [before])  # the host's own
        return job, False
    except IntegrityError:
        job = _submitted_before(client, idempotency_key, submission)
        if job is None:
            raise
        return job, True
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        raise IdempotencyInProgress(
            "another request with this Idempotency-Key is still being taken in",
            code="idempotency_in_progress",
        ) from error


def submit_many(client: Client, asked: Sequence[Submission], keys: Sequence[str | None] = ()) -> list[Job]:
    """Submit many in one statement, in order. The jobs come with pool, client and tier, without request and result."""
    pools = {name: pool_for(name, client) for name in {submission.model for submission in asked}}
    rows = [
        _row(client, submission, pools[submission.model], keys[index] if keys else None)
        for index, submission in enumerate(asked)
    ]
    with connection.cursor() as cursor:
        cursor.execute(load("submit"), {"jobs": json.dumps(rows, ensure_ascii=False)})
        made = cursor.fetchall()
    jobs = [
        _made(client, pools[submission.model], row, values)
        for submission, row, values in zip(asked, rows, made, strict=True)
    ]
    wake_on_commit(
        (WORK_CHANNEL, sorted({f"pool:{pool.id}" for pool in pools.values()})),
        (EVENTS_CHANNEL, [Wake(job.id, client.id, 1 << 20) for job in jobs]),
    )
    return jobs


def _row(client: Client, asked: Submission, pool: Model, key: str | None) -> dict[str, Any]:
    if asked.priority < client.tier.max_priority:
        most = Priority(client.tier.max_priority).word
        raise InvalidRequest(
            f"expected at most {most} in the tier {client.tier.name}, got {Priority(asked.priority).word}",
            param="priority",
            code="priority_not_allowed",
        )
    guess = estimate(
        asked.endpoint,
        asked.request,
        output_weight=pool.output_weight,
        default_output_tokens=conf.default_output_tokens,
        short_output_tokens=conf.short_output_tokens,
    )
    return {
        "public_id": str(uuid7()),
        "pool_id": pool.id,
        "shard_id": pool.shard_id,
        "client_id": client.id,
        "tier_id": client.tier_id,
        "endpoint": asked.endpoint,
        "priority": int(asked.priority),
        "size": int(guess.size),
        "est_input_tokens": guess.input_tokens,
        "est_output_tokens": guess.output_tokens,
        "est_cost": guess.cost,
        "max_attempts": asked.max_attempts,
        "timeout_s": asked.timeout_s,
        "retry_for_s": asked.retry_for_s,
        "delay_s": asked.delay_s,
        "expires_in_s": asked.expires_in_s,
        "body": asked.body,
        "prompt_hash": asked.prompt_hash,
        "metadata": asked.metadata,
        "user": asked.user,
        "max_cost_usd": None if asked.max_cost_usd is None else str(asked.max_cost_usd),
        "idempotency_key": key,
        "fingerprint": asked.fingerprint if key is not None else None,
    }


def _made(client: Client, pool: Model, row: dict[str, Any], values: Sequence[Any]) -> Job:
    job_id, public_id, state, lane_order, created_at, available_at, retry_until, expires_at = values
    columns = {column.attname for column in Job._meta.concrete_fields}
    job = Job(
        **{name: value for name, value in row.items() if name in columns and name != "public_id"},
        id=job_id, public_id=public_id, state=state, lane_order=lane_order, created_at=created_at,
        available_at=available_at, retry_until=retry_until, expires_at=expires_at, attempt=0, failures=0, epoch=1,
    )  # fmt: skip
    job._state.adding, job._state.db = False, connection.alias
    job.pool, job.client, job.tier = pool, client, client.tier
    job._state.fields_cache["result"] = None  # it has none yet: no need to ask
    job.request = JobRequest(
        job_id=job_id, client_id=client.id, body=row["body"], prompt_hash=row["prompt_hash"],
        metadata=dict(row["metadata"]), user=row["user"], idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        max_cost_usd=None if row["max_cost_usd"] is None else Decimal(row["max_cost_usd"]),
    )  # fmt: skip
    return job


def _submitted_before(client: Client, key: str, submission: Submission) -> Job | None:
    is_kept = Q(job__created_at__gt=Now() - timedelta(seconds=conf.idempotency_keep_s))
    request = JobRequest.objects.filter(client=client, idempotency_key=key).annotate(is_kept=is_kept).first()
    if request is None:
        return None
    if not request.is_kept:
        JobRequest.objects.filter(pk=request.pk).update(idempotency_key=None)
        return None
    if request.fingerprint != submission.fingerprint:
        raise IdempotencyKeyReused(
            "expected the body that first came with this Idempotency-Key, got another one",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    return Job.objects.select_related("pool__provider", "client", "tier", "request", "result").get(id=request.job_id)


def cancel(job_ids: Iterable[int], *, client_id: int | None = None) -> list[int]:
    """Cancel waiting jobs at once; ask the workers of running ones to abort. Idempotent. Returns the ids it changed."""
    with connection.cursor() as cursor:
        cursor.execute(load("cancel"), {"ids": list(job_ids), "client_id": client_id})
        rows = cursor.fetchall()
    wake_on_commit(
        (EVENTS_CHANNEL, [Wake(job_id, owner, seq) for job_id, owner, seq, state, _ in rows if state != "running"]),
        (WORK_CHANNEL, [f"cancel:{job_id}:{attempt}" for job_id, _, _, state, attempt in rows if state == "running"]),
    )
    return [row[0] for row in rows]


def requeue(job_ids: Iterable[int]) -> list[int]:
    """Queue failed, dead, cancelled and expired jobs again, at the end of their lanes. Returns the ids it changed."""
    with connection.cursor() as cursor:
        cursor.execute(load("requeue"), {"ids": list(job_ids)})
        rows = cursor.fetchall()
    wake_on_commit(
        (EVENTS_CHANNEL, [Wake(job_id, owner, seq) for job_id, owner, seq, _, _ in rows]),
        (WORK_CHANNEL, sorted({f"pool:{pool_id}" for *_, pool_id in rows})),
    )
    return [row[0] for row in rows]


def erase(job_id: int) -> None:
    """Remove a finished job's request, output and events; the job's row, its usage and cost, and its ledger stay.

    Raises JobNotFound, or NotAllowed while the job is not finished.
    """
    with transaction.atomic():
        job = Job.objects.select_for_update(no_key=True).filter(id=job_id).first()
        if job is None:
            raise JobNotFound(str(job_id))
        if job.state not in TERMINAL:
            raise NotAllowed(f"expected a finished job, got one that is {job.state}")
        JobRequest.objects.filter(job_id=job_id).delete()
        JobResult.objects.filter(job_id=job_id).update(output=None, output_text="", error_message=None)
        JobEvent.objects.filter(job_id=job_id).delete()


acancel = sync_to_async(cancel)
arequeue = sync_to_async(requeue)


# Claim, settle and the duties: a worker's own connection, in autocommit mode.


_CLAIMED_FIELDS = tuple(Claimed.__dataclass_fields__)


async def claim(
    conn: AsyncConnection[Any],
    *,
    worker: UUID,
    pool_id: int,
    count: int,
    tiers: list[int] | None = None,
    short_only: bool = False,
    exclude: Sequence[int] = (),
) -> Claim:
    """Claim up to `count` jobs of a pool in fair order: one transaction, one round trip."""
    size = next((n for n in CLAIM_SIZES if n >= count), CLAIM_SIZES[-1])
    count = min(count, size)
    params = {
        "pool": pool_id, "count": count, "worker": worker, "tiers": tiers, "short_only": short_only,
        "exclude": list(exclude),
    }  # fmt: skip
    async with conn.pipeline(), conn.transaction():
        fold = await _fold(conn, is_sweep=False)
        cursor = conn.cursor(row_factory=dict_row)
        await cursor.execute(load("claim", n=size), params)
    rows = await cursor.fetchall()
    _, more = await fold.fetchone()
    result = Claim(skipped=rows[0]["skipped"])
    for row in rows:
        if row["state"] == "running":
            result.jobs.append(Claimed(**{name: row[name] for name in _CLAIMED_FIELDS}))
        elif row["state"] == "expired":
            result.expired.append(Wake(row["id"], row["client_id"], row["epoch"] << 20))
    is_short = len(result.jobs) < count
    result.again = more or (is_short and bool(rows[0]["slept"] or result.skipped or result.expired))
    return result


async def _fold(conn: AsyncConnection[Any], *, is_sweep: bool) -> Any:
    """The statements before the claim proper: pin the planner, lock the turnstile, grow, fold."""
    params = {"shard": SHARD, "is_sweep": is_sweep, "lag_tokens": conf.lag_tokens}
    await conn.execute(load("pin"))
    await conn.execute(load("lock"), params)
    await conn.execute(load("grow"), params)
    return await conn.execute(load("fold", rows=conf.fold_rows_max), params)


async def sweep(conn: AsyncConnection[Any]) -> int:
    """Fold the rows of the inbox whose transaction committed late. Returns how many rows it took."""
    async with conn.transaction():
        due = await (await conn.execute(load("sweep_is_due"), {"shard": SHARD})).fetchone()
        if due is None or not due[0]:
            return 0
        taken, _ = await (await _fold(conn, is_sweep=True)).fetchone()
    return int(taken)


async def ready_pools(conn: AsyncConnection[Any]) -> list[int]:
    """The ids of the pools with something to claim, or with news in the inbox."""
    rows = await (await conn.execute(load("ready_pools"), {"shard": SHARD})).fetchall()
    return [row[0] for row in rows]


async def settle(
    conn: AsyncConnection[Any],
    settlements: Sequence[Settlement],
    *,
    worker: UUID,
    events: Sequence[Event] = (),
) -> tuple[dict[int, str], list[Wake]]:
    """End attempts, after their last events, in one transaction.

    Returns the new state by job id, and the wake-ups to send after it. A job that is missing has lost its lease.
    """
    rows = json.dumps([settlement.json() for settlement in settlements], ensure_ascii=False)
    async with conn.pipeline(), conn.transaction():
        if events:
            await append(conn, events, worker=worker)
        cursor = await conn.execute(load("settle"), {"settlements": rows, "worker": worker})
    moved = await cursor.fetchall()
    states = {job_id: state for job_id, _, _, state in moved}
    if missing := [settlement for settlement in settlements if settlement.job_id not in states]:
        for job_id in await _settled_before(conn, missing, worker):
            states[job_id] = "settled"
    return states, [Wake(job_id, client_id, seq) for job_id, client_id, seq, _ in moved]


async def _settled_before(conn: AsyncConnection[Any], missing: Sequence[Settlement], worker: UUID) -> list[int]:
    """A settle whose acknowledgement was lost is no lost lease."""
    params = {"ids": [s.job_id for s in missing], "attempts": [s.attempt for s in missing], "worker": worker}
    return [row[0] for row in await (await conn.execute(load("settled_before"), params)).fetchall()]


async def reclaim(conn: AsyncConnection[Any]) -> list[Wake]:
    """Take back what dead workers hold, and what runs past its timeout."""
    params = {
        "lease_s": conf.lease_s, "grace_s": conf.reclaim_grace_s, "backoff_base_s": conf.backoff_base_s,
        "backoff_cap_s": conf.backoff_cap_s,
    }  # fmt: skip
    return await _moved(conn, load("reclaim", rows=DUTY_ROWS), params)


async def stage(conn: AsyncConnection[Any]) -> list[Wake]:
    """Queue the scheduled jobs whose time has come."""
    return await _moved(conn, load("stage", rows=DUTY_ROWS), {})


async def expire(conn: AsyncConnection[Any]) -> list[Wake]:
    """End the waiting jobs whose deadline for a start has passed."""
    return await _moved(conn, load("expire", rows=DUTY_ROWS), {})


async def _moved(conn: AsyncConnection[Any], statement: str, params: dict[str, Any]) -> list[Wake]:
    rows = await (await conn.execute(statement, params)).fetchall()
    return [Wake(job_id, client_id, seq) for job_id, client_id, seq, *_ in rows]
