"""How the shares of what waits now would move if a weight or a tier were another. Pure.

Tiers with something waiting share a model by weight, and a tier's clients with something waiting share that by weight,
both in weighted tokens (fairness.py). So a client's share is its tier's part of the tiers times its own part of the
tier. Who has nothing waiting has no share, and takes none from the others: that is how all stands at this moment.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

CLIENTS_MAX = 20  # named; the others are one line


@dataclass(frozen=True, slots=True)
class Waiting:
    """A client with jobs waiting for a model, that nothing but their turn holds back."""

    pool: str
    client: str
    tier: str
    weight: float
    queued: int


@dataclass(frozen=True, slots=True)
class Change:
    """Of a tier its weight; of a client its weight and its tier. None: as it is."""

    tier: str | None = None
    tier_weight: float | None = None
    client: str | None = None
    client_weight: float | None = None
    client_tier: str | None = None

    def of(self, flow: Waiting) -> Waiting:
        if flow.client != self.client:
            return flow
        weight = flow.weight if self.client_weight is None else self.client_weight
        return replace(flow, weight=weight, tier=self.client_tier or flow.tier)

    def weights(self, tiers: Mapping[str, float]) -> dict[str, float]:
        if self.tier is None or self.tier_weight is None:
            return dict(tiers)
        return {**tiers, self.tier: self.tier_weight}


@dataclass(frozen=True, slots=True)
class Move:
    """A share of one model before and after, 0 to 1, and how many jobs wait for it."""

    name: str
    queued: int
    before: float
    after: float

    @property
    def by(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class PoolMoves:
    """`clients`: those that move, the changed one first, then the furthest; `others`: the rest together, or None."""

    pool: str
    queued: int
    tiers: tuple[Move, ...]
    clients: tuple[Move, ...]
    others: Move | None
    others_count: int

    @property
    def is_moved(self) -> bool:
        return any(abs(move.by) > 1e-9 for move in (*self.tiers, *self.clients))


def moves(waiting: Sequence[Waiting], tiers: Mapping[str, float], change: Change) -> list[PoolMoves]:
    """A model each, the largest backlog first. `tiers`: their weights by name, as they are."""
    by_pool: dict[str, list[Waiting]] = defaultdict(list)
    for flow in waiting:
        by_pool[flow.pool].append(flow)
    found = [_of_pool(pool, flows, tiers, change) for pool, flows in by_pool.items()]
    return sorted(found, key=lambda pool: (-pool.queued, pool.pool))


def _of_pool(pool: str, flows: Sequence[Waiting], tiers: Mapping[str, float], change: Change) -> PoolMoves:
    changed = [change.of(flow) for flow in flows]
    tiers_before, tiers_after = _tiers(flows, tiers), _tiers(changed, change.weights(tiers))
    before, after = _clients(flows, tiers_before), _clients(changed, tiers_after)
    queued: dict[str, int] = defaultdict(int)
    for flow in flows:
        queued[flow.tier] += flow.queued
    of_tiers = [
        Move(name, queued[name], tiers_before.get(name, 0.0), tiers_after.get(name, 0.0))
        for name in sorted({*tiers_before, *tiers_after}, key=lambda name: (-tiers[name], name))
    ]
    first = heapq.nsmallest(
        CLIENTS_MAX,
        flows,
        key=lambda flow: (
            flow.client != change.client,
            -abs(after[flow.client] - before[flow.client]),
            -flow.queued,
            flow.client,
        ),
    )
    named = [Move(flow.client, flow.queued, before[flow.client], after[flow.client]) for flow in first]
    total = sum(queued.values())
    return PoolMoves(
        pool, total, tuple(of_tiers), tuple(named), _rest(named, total, len(flows)), len(flows) - len(named)
    )


def _tiers(flows: Iterable[Waiting], weights: Mapping[str, float]) -> dict[str, float]:
    """The share of each tier that has something waiting."""
    present = {flow.tier for flow in flows}
    whole = sum(weights[name] for name in present)
    return {name: weights[name] / whole for name in present}


def _clients(flows: Iterable[Waiting], tiers: Mapping[str, float]) -> dict[str, float]:
    in_tier: dict[str, float] = defaultdict(float)
    flows = list(flows)
    for flow in flows:
        in_tier[flow.tier] += flow.weight
    return {flow.client: tiers[flow.tier] * flow.weight / in_tier[flow.tier] for flow in flows}


def _rest(named: Sequence[Move], queued: int, clients: int) -> Move | None:
    """Those who are not named, together: all shares of a model are one."""
    if clients == len(named):
        return None
    before, after = (max(0.0, 1 - sum(getattr(move, share) for move in named)) for share in ("before", "after"))
    return Move("others", queued - sum(move.queued for move in named), before, after)
