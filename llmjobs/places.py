"""Where a waiting job stands: how many starts come before it, when its own may come, what holds it back.

The next starts of a pool are asked for once and kept for a moment: every page of every viewer is served from the same
answer, so asking costs the same however many ask. A job that is not among them gets an estimate: its client's jobs
before it, by the client's share of the starts. Writes nothing, but for the fold that the order needs (folding.py).
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction

from llmjobs.conf import conf
from llmjobs.folding import help_fold
from llmjobs.models import Job
from llmjobs.sql import load

STARTS_MAX = 1_000  # looked ahead; beyond it a position is a round number
KEPT_S = 0.5
KEPT_BY_COST = 20  # and as many times longer as it took to ask: looking ahead takes 5 % of a core at most
POOLS_MAX = 1_000
# It goes on by itself, as others end or time goes by.
PASSING = frozenset({"client_rate_limit", "rate_limit", "client_concurrency", "model_concurrency"})


@dataclass(frozen=True, slots=True)
class Place:
    """`position`: starts expected before it, 0 for the next; `eta_s`: None where the pool started nothing lately."""

    position: int
    eta_s: float | None
    blocked_by: str | None


@dataclass(slots=True)
class Starts:
    """The next starts of a pool; `is_cut` where there are more. `until` is of the monotonic clock."""

    until: float = 0.0
    is_cut: bool = False
    places: dict[int, int] = field(default_factory=dict)  # by job
    own_ahead: dict[int, int] = field(default_factory=dict)  # by job, those of its client before it
    of_client: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # how many of them
    weights: dict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))  # by tier, by client
    tier_weights: dict[int, float] = field(default_factory=dict)

    def share(self, client_id: int, weight: float, tier_id: int, tier_weight: float) -> float:
        """The part of the pool's starts that this client gets: as among the next ones, or by weight if it has none."""
        if starts := self.of_client.get(client_id):
            return starts / len(self.places)
        peers = sum(self.weights[tier_id].values()) if tier_id in self.weights else 0.0
        tiers = sum(self.tier_weights.values()) + (0.0 if tier_id in self.tier_weights else tier_weight)
        return weight / (weight + peers) * tier_weight / tiers

    def position(self, own_ahead: int, share: float) -> int:
        """Of a job that is not among them, `own_ahead` jobs of its client being before it."""
        expected = own_ahead if share >= 1 else int((own_ahead + 0.5) / share)
        if self.is_cut:
            expected = max(expected, len(self.places))
        return expected if expected <= STARTS_MAX else round(expected, 2 - len(str(expected)))


_kept: dict[int, Starts] = {}
_asking = threading.Lock()


def places(jobs: Sequence[Job]) -> dict[int, Place]:
    """Where queued jobs stand, by id; a job that has started meanwhile is missing."""
    if not jobs:
        return {}
    starts = {pool_id: next_starts(pool_id) for pool_id in {job.pool_id for job in jobs}}
    unplaced = [job.id for job in jobs if job.id not in starts[job.pool_id].places]
    params = {"ids": [job.id for job in jobs], "unplaced": unplaced, "lease_s": conf.lease_s}
    with connection.cursor() as cursor:
        cursor.execute(load("places", most=STARTS_MAX), params)
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {row["id"]: _place(row, starts[row["pool_id"]]) for row in rows}


def next_starts(pool_id: int) -> Starts:
    """As they were a moment ago. While one asks, others take what was known before, or wait for the first answer."""
    kept = _kept.get(pool_id)
    if kept is not None and kept.until > time.monotonic():
        return kept
    if not _asking.acquire(blocking=kept is None) and kept is not None:
        return kept
    try:
        began_at = time.monotonic()
        found = _ask(pool_id)
        found.until = time.monotonic() + max(KEPT_S, KEPT_BY_COST * (time.monotonic() - began_at))
        if len(_kept) >= POOLS_MAX:
            _kept.clear()
        _kept[pool_id] = found
        return found
    finally:
        _asking.release()


def _ask(pool_id: int) -> Starts:
    params: dict[str, Any] = {
        "pool": pool_id, "count": STARTS_MAX, "tiers": None, "short_only": False, "exclude": [], "is_look": True,
    }  # fmt: skip
    help_fold()  # what was submitted since the last claim has no place before
    # The planner is pinned as for a claim, and let go of by rolling back, so that a caller's transaction keeps its own.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(load("pin"))
        cursor.execute(load("order", n=STARTS_MAX), params)
        rows = cursor.fetchall()
        transaction.set_rollback(True)
    found = Starts(is_cut=len(rows) >= STARTS_MAX or any(row[0] is None for row in rows))
    for place, (job_id, client_id, weight, tier_id, tier_weight) in enumerate(rows):
        if job_id is None:
            break
        found.places[job_id] = place
        found.own_ahead[job_id] = found.of_client[client_id]
        found.of_client[client_id] += 1
        found.weights[tier_id][client_id] = weight
        found.tier_weights[tier_id] = tier_weight
    return found


def _place(row: dict[str, Any], starts: Starts) -> Place:
    position = starts.places.get(row["id"])
    if position is None:
        share = starts.share(row["client_id"], row["weight"], row["tier_id"], row["tier_weight"])
        position = starts.position(row["own_ahead"], share)
    reasons = {
        "client_paused": row["is_client_paused"],
        "model_paused": row["is_model_paused"],
        "provider_paused": row["is_provider_paused"],
        row["stopped_by"]: row["stopped_by"],  # provider_down, provider_quota, provider_auth, or none
        "claims_paused": row["are_claims_paused"],
        "no_worker": row["has_no_worker"],
        "client_rate_limit": row["is_client_limited"],
        "rate_limit": row["is_limited"],
        "client_concurrency": row["is_client_full"],
        "model_concurrency": row["is_model_full"],
    }
    blocked_by = next((reason for reason, holds in reasons.items() if holds), None)
    eta_s = None
    if row["starts_per_s"] and (blocked_by is None or blocked_by in PASSING):
        own_ahead = starts.own_ahead.get(row["id"], row["own_ahead"])
        eta_s = round(max(_pool_s(row, position), _client_s(row, own_ahead)), 1)
    return Place(position, eta_s, blocked_by)


def _pool_s(row: dict[str, Any], position: int) -> float:
    """Until its turn comes, by the pace of the pool."""
    starts_per_s: float = row["starts_per_s"]
    return max((position + 1) / starts_per_s, row["opens_in_s"] + position / starts_per_s)


def _client_s(row: dict[str, Any], own_ahead: int) -> float:
    """Until its client's own limits have room for it, where those of its jobs that come before are like it."""
    wait_s = 0.0
    for held, amount, limit in ((row["own_requests"], 1, row["rpm"]), (row["own_tokens"], row["tokens"], row["tpm"])):
        if limit:
            wait_s = max(wait_s, ((held or 0.0) + (own_ahead + 1) * amount - limit) * 60 / limit)
    return wait_s
