"""The verbs: the only writer of `Job.state`.

A host project imports what `__all__` names. A verb is a file in `sql/` and a function here, in `submitting.py` and
`submitting_many.py`, or in `steering.py`: what operators do, and cancel.
Those two use Django's connection and take part in the caller's transaction; claim, settle, reclaim, stage and expire
are the workers', over psycopg's async connections. Every write to a running job names its lease, which is the job's id,
the attempt's number and the worker; who is not returned has lost it. Everybody appends to the inbox; only a claim,
under the turnstile, writes flows and lanes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connection
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from llmjobs import handlers
from llmjobs.attempt_log import End, log_end
from llmjobs.conf import conf
from llmjobs.database import one_trip
from llmjobs.events import Event, Wake, append
from llmjobs.folding import SHARD, fold
from llmjobs.leases import Claim, Claimed, Settlement
from llmjobs.models import Client
from llmjobs.pauses import pause_claims as pause_claims
from llmjobs.pauses import resume_claims as resume_claims
from llmjobs.sql import load
from llmjobs.states import TERMINAL
from llmjobs.stats import queue_stats
from llmjobs.steering import acancel as acancel
from llmjobs.steering import arequeue as arequeue
from llmjobs.steering import asked_of as asked_of
from llmjobs.steering import cancel as cancel
from llmjobs.steering import discard as discard
from llmjobs.steering import erase as erase
from llmjobs.steering import erase_many as erase_many
from llmjobs.steering import move as move
from llmjobs.steering import reprioritize as reprioritize
from llmjobs.steering import requeue as requeue
from llmjobs.steering import requeue_as as requeue_as
from llmjobs.steering import restore as restore
from llmjobs.steering import unblock as unblock
from llmjobs.submitting import asubmit as asubmit
from llmjobs.submitting import owner_of
from llmjobs.submitting import submit as submit
from llmjobs.submitting import submit_submission as submit_submission
from llmjobs.submitting import submit_submissions as submit_submissions
from llmjobs.submitting_many import asubmit_many as asubmit_many
from llmjobs.submitting_many import submit_many as submit_many

__all__ = [
    "acancel",
    "arequeue",
    "astats",
    "asubmit",
    "asubmit_many",
    "cancel",
    "requeue",
    "stats",
    "submit",
    "submit_many",
]

CLAIM_SIZES = (1, 4, 16, 64, 256)  # literal limits in a few sizes, so that few plans exist
BUSY = "busy"  # settle's word for a job whose row is locked by somebody else
STAGE_TURNS = 100  # batches at once where retries are held back: a storm of 50,000 holds nobody else up
DUTY_ROWS = 500  # rows that a duty takes at once: its locks last milliseconds


def stats(*, client: Client | str | None = None) -> dict[str, Any]:
    """The statistics of GET /api/stats: of one client, or of all. They cost the same at any backlog."""
    return queue_stats(None if client is None else [owner_of(client).pk])


astats = sync_to_async(stats)


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
    jitter_s: float = 0.0,
) -> Claim:
    """Claim up to `count` jobs of a pool in fair order, inside its limits: one transaction, one round trip.

    `jitter_s`: how late calls left this worker lately, at most.

    Where somebody's first job needs a flow or lane made, that claim takes nothing, and a second one makes them first.
    """
    size = next((n for n in CLAIM_SIZES if n >= count + len(exclude)), CLAIM_SIZES[-1])
    count = min(count, size)
    params = {
        "pool": pool_id, "count": count, "worker": worker, "tiers": tiers, "short_only": short_only,
        "exclude": list(exclude), "is_look": False, "jitter_s": jitter_s, "ahead_s": conf.send_ahead_s,
        "default_rpm": conf.default_rpm, "default_tpm": conf.default_tpm, "portfolio_z": conf.portfolio_z,
        "slow_down_ramp_s": conf.slow_down_ramp_s,
    }  # fmt: skip
    for is_grown in (False, True):
        async with one_trip(conn):
            folded = await fold(conn, is_grown=is_grown)
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute(load("claim", n=size), params)
        rows = await cursor.fetchall()
        _, more, is_missing, *_ = await folded.fetchone()
        if not is_missing:
            break
    result = Claim(
        **{name: rows[0][name] for name in ("skipped", "clock", "opens_in_s", "wake_in_s", "is_account_full")}
    )
    for row in rows:
        if row["state"] == "running":
            result.jobs.append(Claimed(**{name: row[name] for name in _CLAIMED_FIELDS}))
        elif row["state"] == "expired":
            result.expired.append(Wake(row["id"], row["client_id"], row["epoch"] << 20))
    is_short = len(result.jobs) < count
    # Each of these is a step: the next claim sees other lanes, or goes on behind what this one took.
    stepped = (
        rows[0]["slept"] or rows[0]["closed"] or result.skipped or result.expired or (result.jobs and rows[0]["is_cut"])
    )
    result.again = more or (is_short and bool(stepped))
    return result


async def sweep(conn: AsyncConnection[Any], *, is_full: bool = False) -> int:
    """Fold the rows of the inbox whose transaction committed late, and raise the lanes that are due to age.

    Returns how many rows of the inbox it took. `is_full`: looks behind the bound of sweeps too.
    """
    async with conn.transaction():
        due = await (await conn.execute(load("sweep_is_due"), {"shard": SHARD, "is_full": is_full})).fetchone()
        if due is None or not due[0]:
            return 0
        taken, *_ = await (await fold(conn, is_sweep=True, is_full=is_full)).fetchone()
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
    signals: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[int, str], list[Wake]]:
    """End attempts, after their last events and with what providers said (as of `report`), in one transaction.

    Returns the new state by job id, and the wake-ups to send after it. A job that is missing has lost its lease; one
    that is BUSY is locked by somebody else, and is to be settled again.
    """
    rows = json.dumps([settlement.json() for settlement in settlements], ensure_ascii=False)
    async with one_trip(conn):
        await conn.execute(load("pin_writes"))
        if events:
            await append(conn, events, worker=worker)
        if signals:
            await report(conn, signals)
        cursor = await conn.execute(load("settle"), {"settlements": rows, "worker": worker})
    moved = await cursor.fetchall()
    states = {job_id: state for job_id, _, _, state in moved}
    if missing := [settlement for settlement in settlements if settlement.job_id not in states]:
        for job_id in await _settled_before(conn, missing, worker):
            states[job_id] = "settled"
    return states, [Wake(job_id, client_id, seq) for job_id, client_id, seq, state in moved if state != BUSY]


def settle_with_handler(settlement: Settlement, *, worker: UUID) -> tuple[str, list[Wake]] | None:
    """End one attempt, and tell the handler of the job that it ends, in the caller's transaction (Django's connection).

    Returns the new state and the wake-ups to send after the commit. None: the lease is not held, as far as can be seen
    here; nothing was written, and `settle` has the last word.
    """
    rows = json.dumps([settlement.json()], ensure_ascii=False)
    with connection.cursor() as cursor:
        cursor.execute(load("pin_writes"))
        cursor.execute(load("settle"), {"settlements": rows, "worker": worker})
        moved = cursor.fetchall()
        cursor.execute(load("unpin_writes"))
    if not moved or moved[0][3] == BUSY:
        return None
    [(job_id, client_id, seq, state)] = moved
    if state in TERMINAL:
        handlers.call_ended([job_id])
    return state, [Wake(job_id, client_id, seq)]


async def _settled_before(conn: AsyncConnection[Any], missing: Sequence[Settlement], worker: UUID) -> list[int]:
    """A settle whose acknowledgement was lost is no lost lease."""
    params = {"ids": [s.job_id for s in missing], "attempts": [s.attempt for s in missing], "worker": worker}
    return [row[0] for row in await (await conn.execute(load("settled_before"), params)).fetchall()]


async def report(conn: AsyncConnection[Any], signals: Sequence[Mapping[str, Any]]) -> None:
    """Tell the claims what providers said: rows for report.sql."""
    await conn.execute(load("report"), {"signals": json.dumps(signals, ensure_ascii=False)})


async def reclaim(conn: AsyncConnection[Any]) -> list[Wake]:
    """Take back what dead workers hold, and what runs past its timeout."""
    params = {
        "lease_s": conf.lease_s, "grace_s": conf.reclaim_grace_s, "backoff_base_s": conf.backoff_base_s,
        "backoff_cap_s": conf.backoff_cap_s,
    }  # fmt: skip
    rows = await (await conn.execute(load("reclaim", rows=DUTY_ROWS), params)).fetchall()
    for _, _, _, state, job, attempt, client, tier, pool, outcome, *rest in rows:  # in the place of who was lost
        log_end(End(job, attempt, client, tier, pool, outcome, state, *rest))
    return [Wake(job_id, client_id, seq) for job_id, client_id, seq, *_ in rows]


async def stage(conn: AsyncConnection[Any]) -> list[Wake]:
    """Queue the scheduled jobs whose time has come."""
    params = {
        "share": conf.retry_share, "least_per_s": conf.retry_min_per_s, "more_s_max": max(conf.backoff_cap_s, 1.0),
    }  # fmt: skip
    staged: list[Wake] = []
    for _ in range(STAGE_TURNS):
        *moved, looked_at = await (await conn.execute(load("stage", rows=DUTY_ROWS), params)).fetchall()
        staged += [Wake(job_id, client_id, seq) for job_id, client_id, seq, _ in moved]
        if looked_at[2] < DUTY_ROWS or len(moved) == looked_at[2]:
            break  # a batch that was held back stands before others no more: the next one at once
    return staged


async def expire(conn: AsyncConnection[Any]) -> list[Wake]:
    """End the waiting jobs whose deadline for a start has passed."""
    return await _moved(conn, load("expire", rows=DUTY_ROWS), {})


async def _moved(conn: AsyncConnection[Any], statement: str, params: dict[str, Any]) -> list[Wake]:
    rows = await (await conn.execute(statement, params)).fetchall()
    return [Wake(job_id, client_id, seq) for job_id, client_id, seq, *_ in rows]
