"""How long things took: counts between fixed bounds, and what can be read from them. Pure.

Owns the bounds, which the fold and /metrics share. Invariant: two histograms add up, whatever bounds each was counted
with, since each count says its own.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from math import inf

# Upper bounds in seconds. What took longer is counted in a last bucket without bound.
BOUNDS_S = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0,
    180.0, 300.0, 600.0,
)  # fmt: skip


Bucket = tuple[float, int, float]  # its bound, how many, their seconds together


@dataclass(slots=True)
class Histogram:
    """By upper bound in seconds (infinity: the last), how many took less, and no less than the bound before; and the
    seconds that these took together.
    """

    numbers: Counter[float] = field(default_factory=Counter)
    sums_s: Counter[float] = field(default_factory=Counter)

    def add(self, buckets: Iterable[Bucket]) -> None:
        for le_s, number, sum_s in buckets:
            self.numbers[le_s] += number
            self.sums_s[le_s] += sum_s  # type: ignore[assignment]  # a Counter adds floats too

    @property
    def count(self) -> int:
        return self.numbers.total()

    @property
    def sum_s(self) -> float:
        return float(self.sums_s.total())

    def cumulative(self, bounds_s: Iterable[float] = (*BOUNDS_S, inf)) -> list[tuple[float, int]]:
        """(bound, how many took less), as Prometheus has it."""
        return [(at, sum(number for le_s, number in self.numbers.items() if le_s <= at)) for at in bounds_s]

    def percentile(self, percent: float) -> float | None:
        """In seconds, on a line from bound to bound; past the last bound, what took so long on average. None: empty."""
        rank, bounds = self.count * percent / 100, sorted(le_s for le_s, number in self.numbers.items() if number)
        reached = accumulate(self.numbers[le_s] for le_s in bounds)
        for le_s, (before, after) in zip(bounds, pairwise((0, *reached)), strict=True):
            if after >= rank:
                low = max((bound for bound in BOUNDS_S if bound < le_s), default=0.0)
                if le_s == inf:
                    return max(low, self.sums_s[le_s] / self.numbers[le_s])
                return low + (le_s - low) * (rank - before) / (after - before)
        return None
