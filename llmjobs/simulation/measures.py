"""What the runs say: shares against weights, Jain's index, gaps against their bound, waits against those when alone.

Under full load every client always waits, so two of a tier (their weights are equal here) may be apart by the bound
of fairness.py, d · (C + E), and no more. The bound is the fair order's; the other rules are shown against the same.
A percentile is the least value that so many percent do not exceed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmjobs.simulation.policies import FAIR, POLICIES
from llmjobs.simulation.running import Arrivals, FullLoad, Progress, alone, as_they_arrive, under_full_load
from llmjobs.simulation.workload import Workload


@dataclass(frozen=True, slots=True)
class Waits:
    p50_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """`shares` by tier; `share_error`: the largest relative distance of one from its weight's; `misplaced`: the part of
    all tokens that another tier should have had."""

    shares: tuple[float, ...]
    share_error: float
    misplaced: float
    jain: float
    largest_gap: float
    utilisation: float
    took_s: float


@dataclass(frozen=True, slots=True)
class ClientFigures:
    client: int
    tier: int
    calls: int
    alone: Waits
    waits: dict[str, Waits]


@dataclass(frozen=True, slots=True)
class Figures:
    """`curves`: by policy, the cumulative cost of each tier, from time to time. Costs in weighted tokens."""

    weights: tuple[float, ...]
    slots: int
    calls: int
    ideal_shares: tuple[float, ...]
    gap_bound: float
    policies: dict[str, PolicyFigures]
    clients: tuple[ClientFigures, ...]
    curves: dict[str, tuple[tuple[float, ...], ...]]


def simulated(workload: Workload, progress: Progress = lambda ended: None) -> Figures:
    """Runs it all: each client alone, and each policy in both views."""
    alone_s = {client: alone(workload, client, progress) for client in workload.clients}
    full: dict[str, FullLoad] = {}
    arrivals: dict[str, Arrivals] = {}
    for name, policy in POLICIES.items():
        full[name] = under_full_load(workload, policy(workload), progress)
        arrivals[name] = as_they_arrive(workload.calls, workload.slots, policy(workload), progress)
    fair = full[FAIR]
    return Figures(
        weights=workload.weights,
        slots=workload.slots,
        calls=len(workload.calls),
        ideal_shares=_ideal_shares(workload),
        gap_bound=fair.most_in_flight * (fair.dearest + fair.largest_charge),
        policies={name: _of_policy(workload, full[name], arrivals[name]) for name in POLICIES},
        clients=tuple(
            ClientFigures(
                client,
                workload.tier_of(client),
                len(waits_s),
                _waits(waits_s),
                {name: _waits(arrivals[name].waits_s[client]) for name in POLICIES},
            )
            for client, waits_s in alone_s.items()
        ),
        curves={name: tuple(full[name].curve) for name in POLICIES},
    )


def calls_run(workload: Workload) -> int:
    """How many calls `simulated` tells its progress of, about."""
    return len(workload.calls) * (1 + 2 * len(POLICIES))


def jain(shares: Sequence[float]) -> float:
    """1 where all have alike, 1/n where one has all. R. Jain et al., "A Quantitative Measure of Fairness", 1984."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _of_policy(workload: Workload, full: FullLoad, arrivals: Arrivals) -> PolicyFigures:
    """Jain's index is that of the tier in which it is least."""
    ideal, shares = _ideal_shares(workload), _shares(full.tiers)
    tiers = [
        [cost for client, cost in full.clients.items() if workload.tier_of(client) == tier]
        for tier in range(len(workload.weights))
    ]
    present = [tier for tier, costs in enumerate(tiers) if costs]
    return PolicyFigures(
        shares=shares,
        share_error=max(abs(shares[tier] / ideal[tier] - 1) for tier in present),
        misplaced=sum(abs(share - fair) for share, fair in zip(shares, ideal, strict=True)) / 2,
        jain=min(jain(tiers[tier]) for tier in present),
        largest_gap=full.largest_gap,
        utilisation=arrivals.utilisation,
        took_s=arrivals.took_s,
    )


def _ideal_shares(workload: Workload) -> tuple[float, ...]:
    """By weight, among the tiers that have a client."""
    present = {workload.tier_of(client) for client in workload.clients}
    return _shares([weight if tier in present else 0.0 for tier, weight in enumerate(workload.weights)])


def _shares(parts: Sequence[float]) -> tuple[float, ...]:
    total = sum(parts)
    return tuple(part / total if total else 0.0 for part in parts)


def _waits(values_s: Sequence[float]) -> Waits:
    return Waits(percentile(values_s, 50), percentile(values_s, 95))
