"""Slots at work: a call takes one for its service time, and whenever one is free the policy says who is next.

Two views of the same load. Under *full load* each client always has a call waiting, its own ones over and over: what
each gets is then the policy's choice alone, and shares can be held against weights. *As they arrive* each call comes
once and at its time: what counts is how long it waits.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from llmjobs.simulation.policies import Fair, Fifo, Policy
from llmjobs.simulation.workload import Call, Workload

SAMPLES = 120  # points of a curve
Progress = Callable[[float], None]  # told of so many more calls, or as much work


@dataclass(slots=True)
class FullLoad:
    """Costs in weighted tokens. `curve`: the tiers' costs, from time to time. `most_in_flight`: of one client."""

    tiers: list[float]
    clients: dict[int, float]
    curve: list[tuple[float, ...]] = field(default_factory=list)
    largest_gap: float = 0.0
    most_in_flight: int = 0
    dearest: float = 0.0
    largest_charge: float = 0.0


@dataclass(slots=True)
class Arrivals:
    """`waits_s` by client, in the order of arrival."""

    waits_s: dict[int, list[float]]
    utilisation: float
    took_s: float


def under_full_load(workload: Workload, policy: Policy, progress: Progress) -> FullLoad:
    """Until as much is done as the load has in all, so that the policies can be compared."""
    clients = workload.clients
    seen = FullLoad([0.0] * len(workload.weights), dict.fromkeys(clients, 0.0))
    feed, in_flight = _Feed(workload, policy), Counter[int]()
    ends: list[tuple[float, int, Call]] = []
    at_s, done, total = 0.0, 0.0, sum(call.cost for call in workload.calls)
    while done < total:
        while len(ends) < workload.slots and (call := feed.start()) is not None:
            heapq.heappush(ends, (at_s + call.service_s, call.id, call))
            in_flight[call.client] += 1
            seen.most_in_flight = max(seen.most_in_flight, in_flight[call.client])
        at_s, _, call = heapq.heappop(ends)
        policy.settle(call)
        in_flight[call.client] -= 1
        _count(seen, workload, call)
        done += call.cost
        if done >= total * (len(seen.curve) + 1) / SAMPLES:
            seen.curve.append(tuple(seen.tiers))
            progress(len(workload.calls) / SAMPLES)
    if isinstance(policy, Fair):
        seen.largest_charge = policy.largest_charge
    return seen


class _Feed:
    """Keeps every client waiting. First in, first out, that takes the whole load queued again and again."""

    def __init__(self, workload: Workload, policy: Policy) -> None:
        self._policy = policy
        self._ids = itertools.count(len(workload.calls))
        own = {client: itertools.cycle(calls) for client, calls in workload.by_client.items()}
        common = itertools.cycle(workload.calls)
        is_common = isinstance(policy, Fifo)
        self._source: Callable[[int], Iterator[Call]] = (lambda client: common) if is_common else own.__getitem__
        for client in [call.client for call in workload.calls] if is_common else [*own] * 2:
            self._add(client)

    def start(self) -> Call | None:
        call = self._policy.start()
        if call is not None:
            self._add(call.client)
        return call

    def _add(self, client: int) -> None:
        self._policy.submit(replace(next(self._source(client)), id=next(self._ids)))


def _count(seen: FullLoad, workload: Workload, call: Call) -> None:
    """What `call` used, and how far its client is now ahead of the last one of its tier."""
    tier = workload.tier_of(call.client)
    seen.clients[call.client] += call.cost
    seen.tiers[tier] += call.cost
    seen.dearest = max(seen.dearest, call.cost)
    least = min(cost for client, cost in seen.clients.items() if workload.tier_of(client) == tier)
    seen.largest_gap = max(seen.largest_gap, seen.clients[call.client] - least)


def as_they_arrive(calls: Sequence[Call], slots: int, policy: Policy, progress: Progress) -> Arrivals:
    """Each call once, at its time. `calls` are in the order of their arrival."""
    waits_s: dict[int, list[float]] = {call.client: [] for call in calls}
    ends: list[tuple[float, int, Call]] = []
    busy_s = at_s = 0.0
    coming = iter(calls)
    upcoming = next(coming, None)
    while upcoming is not None or ends:
        if upcoming is not None and (not ends or upcoming.at_s <= ends[0][0]):
            at_s = upcoming.at_s
            policy.submit(upcoming)
            upcoming = next(coming, None)
            if upcoming is not None and upcoming.at_s == at_s:
                continue  # a burst is there as a whole
        else:
            at_s, _, ended = heapq.heappop(ends)
            policy.settle(ended)
            progress(1)
        while len(ends) < slots and (call := policy.start()) is not None:
            waits_s[call.client].append(at_s - call.at_s)
            busy_s += call.service_s
            heapq.heappush(ends, (at_s + call.service_s, call.id, call))
    took_s = at_s - calls[0].at_s
    return Arrivals(waits_s, busy_s / (slots * took_s) if took_s else 1.0, took_s)


def alone(workload: Workload, client: int, progress: Progress) -> list[float]:
    """How long a client's calls would wait, in seconds, had it all the slots to itself."""
    return as_they_arrive(workload.by_client[client], workload.slots, Fifo(workload), progress).waits_s[client]
