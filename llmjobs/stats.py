"""What the queue looks like, in numbers. Reads only. Where a single job stands is `places.py`'s."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from django.db import connection

from llmjobs.pinning import pinned
from llmjobs.sql import load
from llmjobs.states import Priority, State

CLIENTS_MAX = 1_000  # named in by_client
OLDEST_AMONG = 100  # of each lane of a client: retries keep their place, so the first need not be the oldest
SUBMITTED = "submitted"  # a state of counts alone: all jobs that ever were


def queue_stats(client_ids: Sequence[int] | None = None) -> dict[str, Any]:
    """The statistics of GET /api/stats, of these clients or of all.

    From counts, so that they cost the same at any backlog. `by_client` names the CLIENTS_MAX clients with the most
    jobs; all jobs are in the other figures. `enqueued_total` and `dequeued_total` include jobs removed since.
    """
    rows, (p50, p95, oldest_queued_s) = _read(client_ids)
    by = {name: Counter[str]() for name in ("status", "client", "tier", "priority", "pending")}
    by["status"].update({state.value: 0 for state in State})
    by["pending"].update({priority.word: 0 for priority in Priority})
    submitted = 0
    for client, tier, priority, state, counted in rows:
        jobs = max(counted, 0)  # where a requeue committed late and its claim did not, for some seconds
        if state is None:
            by["client"][client] += jobs
        elif state == SUBMITTED:
            submitted += jobs
        else:
            word = Priority(priority).word
            by["status"][state] += jobs
            by["tier"][tier] += jobs
            by["priority"][word] += jobs
            by["pending"][word] += jobs if state == State.QUEUED else 0
    return {
        "total": by["status"].total(),
        "queued": by["status"][State.QUEUED],
        "running": by["status"][State.RUNNING],
        "enqueued_total": submitted,
        "dequeued_total": submitted - by["status"][State.QUEUED] - by["status"][State.SCHEDULED],
        "by_priority": dict(by["priority"]),
        "by_client": dict(by["client"]),
        "pending_by_priority": dict(by["pending"]),
        "by_tier": dict(by["tier"]),
        "by_status": dict(by["status"]),
        "wait_s": {"p50": _rounded(p50), "p95": _rounded(p95)},
        "oldest_queued_s": _rounded(oldest_queued_s),
    }


def _read(client_ids: Sequence[int] | None) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
    with pinned():
        if client_ids is None:
            counts, [waits] = _rows("stats", clients=CLIENTS_MAX), _rows("waits")
        else:
            counts = _rows("stats_of_clients", client_ids)
            [waits] = _rows("waits_of_clients", client_ids, heads=OLDEST_AMONG)
    return counts, waits


def _rows(name: str, client_ids: Sequence[int] | None = None, **literals: int) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(load(name, **literals), {"client_ids": None if client_ids is None else list(client_ids)})
        return list(cursor.fetchall())


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 3)
