"""What the queue looks like: statistics, and where a waiting job stands. Reads only."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from llmjobs.conf import conf
from llmjobs.models import Job
from llmjobs.sql import load
from llmjobs.states import Priority, State

PLACE_MAX = 1_000  # beyond it a place is a round number, and counting on would cost more than it says


@dataclass(frozen=True, slots=True)
class Place:
    """`position`: starts expected before it, 0 for the next; `eta_s`: None where the pool started nothing lately."""

    position: int
    eta_s: float | None
    blocked_by: str | None


def places(jobs: Sequence[Job]) -> dict[int, Place]:
    """Where queued jobs stand, by id; a job that has started meanwhile is missing."""
    if not jobs:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(load("places", most=PLACE_MAX), {"ids": [job.id for job in jobs], "lease_s": conf.lease_s})
        return {row[0]: _place(*row[1:]) for row in cursor.fetchall()}


def _place(
    ahead: int,
    starts_per_s: float | None,
    is_client_paused: bool,
    is_model_paused: bool,
    is_provider_paused: bool,
    is_client_full: bool,
    is_model_full: bool,
    has_no_worker: bool,
) -> Place:
    reasons = {
        "client_paused": is_client_paused,
        "model_paused": is_model_paused,
        "provider_paused": is_provider_paused,
        "no_worker": has_no_worker,
        "client_concurrency": is_client_full,
        "model_concurrency": is_model_full,
    }
    blocked_by = next((reason for reason, holds in reasons.items() if holds), None)
    eta_s = round((ahead + 1) / starts_per_s, 1) if starts_per_s and blocked_by is None else None
    return Place(ahead, eta_s, blocked_by)


def queue_stats(client_ids: Sequence[int] | None = None) -> dict[str, Any]:
    """The statistics of GET /api/stats, of these clients or of all."""
    params = {"client_ids": None if client_ids is None else list(client_ids)}
    with connection.cursor() as cursor:
        cursor.execute(load("stats"), params)
        rows = cursor.fetchall()
        cursor.execute(load("waits"), params)
        p50, p95, oldest_queued_s = cursor.fetchone()
    by = {name: Counter[str]() for name in ("status", "client", "tier", "priority", "pending")}
    by["status"].update({state.value: 0 for state in State})
    by["pending"].update({priority.word: 0 for priority in Priority})
    for state, client, tier, priority, jobs in rows:
        word = Priority(priority).word
        by["status"][state] += jobs
        by["client"][client] += jobs
        by["tier"][tier] += jobs
        by["priority"][word] += jobs
        by["pending"][word] += jobs if state == State.QUEUED else 0
    total = sum(by["status"].values())
    return {
        "total": total,
        "queued": by["status"][State.QUEUED],
        "running": by["status"][State.RUNNING],
        "enqueued_total": total,
        "dequeued_total": total - by["status"][State.QUEUED] - by["status"][State.SCHEDULED],
        "by_priority": dict(by["priority"]),
        "by_client": dict(by["client"]),
        "pending_by_priority": dict(by["pending"]),
        "by_tier": dict(by["tier"]),
        "by_status": dict(by["status"]),
        "wait_s": {"p50": _rounded(p50), "p95": _rounded(p95)},
        "oldest_queued_s": _rounded(oldest_queued_s),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 3)
