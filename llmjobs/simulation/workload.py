"""Who asks for what, and when. Pure; all chance comes from a seed.

Clients are numbered from the one that asks most: the k-th asks 1/k^skew as often (Zipf). They are of the tiers in
turn, so that each tier has heavy and light ones. Calls come in bursts, each client has a usual size of its own, and
sizes are lognormal around it, as in the published traces of such services; or times and sizes are a trace's, and only
who asked is by chance.

Times are stretched so that what is asked for is `load` times what the slots can do.
"""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

OUTPUT_WEIGHT = 4.0  # an output token costs about as much as four of input
GUESSED_OUTPUT_TOKENS = 256  # before anything was learned
FIRST_TOKEN_S, TOKENS_PER_S = 0.3, 60.0
BURST_CALLS = 12  # a burst's mean
INPUT_TOKENS, OUTPUT_TOKENS = 400, 120  # medians
CALL_SIGMA, CLIENT_SIGMA = 0.8, 0.8  # the spread of their logarithms, from call to call and from client to client
INPUT_TOKENS_MAX, OUTPUT_TOKENS_MAX = 32_000, 4_000


class Arrived(Protocol):
    """A line of a trace."""

    @property
    def at_s(self) -> float: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Call:
    """`id` numbers the calls in the order of their arrival."""

    id: int
    client: int
    at_s: float
    input_tokens: int
    output_tokens: int

    @property
    def cost(self) -> float:
        """In weighted tokens, at least one: who costs nothing would be served without end."""
        return max(1.0, self.input_tokens + self.output_tokens * OUTPUT_WEIGHT)

    @property
    def est_cost(self) -> float:
        """What is known before the call: its input, and nothing of its output."""
        return self.input_tokens + GUESSED_OUTPUT_TOKENS * OUTPUT_WEIGHT

    @property
    def service_s(self) -> float:
        return FIRST_TOKEN_S + self.output_tokens / TOKENS_PER_S


@dataclass(frozen=True, slots=True)
class Workload:
    """`weights`: a tier each. `calls` are in the order of their arrival, and in `by_client` once more."""

    weights: tuple[float, ...]
    slots: int
    calls: tuple[Call, ...]
    by_client: Mapping[int, Sequence[Call]]

    @property
    def clients(self) -> list[int]:
        """Those that have a call, from the one that asks most by its chance."""
        return sorted(self.by_client)

    def tier_of(self, client: int) -> int:
        return client % len(self.weights)


def by_chance(
    *, seed: int, clients: int, skew: float, calls: int, slots: int, load: float, weights: Sequence[float]
) -> Workload:
    chance = random.Random(seed)  # noqa: S311 not for secrets
    who = _who(chance, clients, skew)
    usual = [chance.lognormvariate(0, CLIENT_SIGMA) for _ in range(clients)]
    made: list[Call] = []
    at_s = 0.0
    while len(made) < calls:
        client, size = next(who), 1 + int(chance.expovariate(1 / (BURST_CALLS - 1)))
        for _ in range(min(size, calls - len(made))):
            read = _size(chance, INPUT_TOKENS * usual[client], INPUT_TOKENS_MAX)
            wrote = _size(chance, OUTPUT_TOKENS * usual[client], OUTPUT_TOKENS_MAX)
            made.append(Call(len(made), client, at_s, read, wrote))
        at_s += chance.expovariate(1)
    return _workload(weights, slots, _stretched(made, slots, load))


def of_trace(
    trace: Iterable[Arrived],
    *,
    seed: int,
    clients: int,
    skew: float,
    slots: int,
    load: float,
    weights: Sequence[float],
) -> Workload:
    who = _who(random.Random(seed), clients, skew)  # noqa: S311 not for secrets
    made = [
        Call(number, client, arrived.at_s, arrived.input_tokens, arrived.output_tokens)
        for number, (arrived, client) in enumerate(zip(trace, who, strict=False))
    ]
    return _workload(weights, slots, _stretched(made, slots, load))


def _workload(weights: Sequence[float], slots: int, calls: tuple[Call, ...]) -> Workload:
    by_client: dict[int, list[Call]] = defaultdict(list)
    for call in calls:
        by_client[call.client].append(call)
    return Workload(tuple(weights), slots, calls, dict(by_client))


def _who(chance: random.Random, clients: int, skew: float) -> Iterator[int]:
    """Clients without end; the k-th with a chance of 1/k^skew among them."""
    chances = list(itertools.accumulate(1 / k**skew for k in range(1, clients + 1)))
    while True:
        yield chance.choices(range(clients), cum_weights=chances)[0]


def _size(chance: random.Random, median: float, most: int) -> int:
    return max(1, min(most, round(chance.lognormvariate(math.log(median), CALL_SIGMA))))


def _stretched(calls: Sequence[Call], slots: int, load: float) -> tuple[Call, ...]:
    """The same calls over as long as the slots need for them, by `load`."""
    takes_s = sum(call.service_s for call in calls) / slots / load
    lasts_s = calls[-1].at_s - calls[0].at_s
    factor = takes_s / lasts_s if lasts_s else 0.0
    return tuple(
        Call(call.id, call.client, (call.at_s - calls[0].at_s) * factor, call.input_tokens, call.output_tokens)
        for call in calls
    )
