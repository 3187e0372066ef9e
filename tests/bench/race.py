"""Eight workers race for a backlog, one job a claim, several in flight each; what is settled is counted by client.

Owns the counting: settled tokens by client, the largest gap of each two clients of a tier against its bound, what was
claimed twice. Estimates are wrong on purpose, by a factor that leans one way for one client and the other way for the
next, so that only the correction at settle keeps the shares.
"""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from llmjobs.leases import Claimed
from tests.bench.backlog import Backlog
from tests.bench.claims import Claimer, claimer

WORKERS, IN_FLIGHT = 8, 3
COSTS = (10.0, 40.0, 120.0, 310.0)  # weighted tokens, as estimated: 31 to 1
TIERS = {"enterprise": 16.0, "pro": 4.0, "free": 1.0}


@dataclass(frozen=True, slots=True)
class Runner:
    """A client that is backlogged throughout. Its jobs use `low` to `high` times their estimate."""

    name: str
    tier: str
    weight: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """Of all tokens, by the weights."""
        return (
            TIERS[self.tier] / sum(TIERS.values()) * self.weight / sum(r.weight for r in RUNNERS if r.tier == self.tier)
        )


RUNNERS = [
    Runner(f"{tier}-{weight:g}-{word}", tier, weight, low, high)
    for tier in TIERS
    for weight in (3.0, 1.0)
    for word, low, high in (("over", 0.1, 1.0), ("under", 1.0, 3.0))  # estimated
]


@dataclass(slots=True)
class Count:
    """What was settled so far. Tokens are weighted, as used."""

    jobs: int = 0
    tokens: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "Count":
        return Count(self.jobs, self.tokens.copy())

    def tier_errors(self) -> dict[str, float]:
        """By tier, how far its settled tokens are from its weight, as a share of that: 0.03 is 3 %."""
        total = sum(self.tokens.values())
        settled = {tier: sum(self.tokens[r.name] for r in RUNNERS if r.tier == tier) for tier in TIERS}
        return {tier: settled[tier] / total / (TIERS[tier] / sum(TIERS.values())) - 1 for tier in TIERS}

    def jain(self) -> float:
        """Jain's index, the least of all groups of clients of one tier and weight; 1 is equal."""
        indexes = []
        for tier, weight in {(r.tier, r.weight) for r in RUNNERS}:
            got = [float(self.tokens[r.name]) for r in RUNNERS if (r.tier, r.weight) == (tier, weight)]
            indexes.append(sum(got) ** 2 / (len(got) * sum(x * x for x in got)))
        return min(indexes)


class Race:
    """`is_corrected`: settle says what was used; else the charge stands, and the count alone knows."""

    def __init__(self, backlog: Backlog, *, is_corrected: bool = True, seed: int = 1) -> None:
        self.backlog, self.is_corrected = backlog, is_corrected
        self._random = random.Random(seed)
        self.count, self.marks = Count(), dict[int, Count]()
        self._held: Counter[str] = Counter()
        self.most_held = 0
        self.dearest = self.largest_estimate = 0.0
        self.gaps: dict[tuple[str, str], float] = {}
        self.seen: Counter[int] = Counter()

    def fill(self, jobs: int) -> None:
        """The clients, each with more jobs than its share of `jobs` settled ones."""
        self.backlog.add_clients([(runner.name, runner.tier, runner.weight) for runner in RUNNERS])
        parts = {runner.name: runner.share / (runner.low + runner.high) for runner in RUNNERS}
        for runner in RUNNERS:
            each = int(1.3 * jobs * parts[runner.name] / sum(parts.values())) + 50 + WORKERS * IN_FLIGHT
            self.backlog.fill(each, names=[runner.name], costs=COSTS)

    async def run(self, marks: Sequence[int]) -> None:
        """Until the largest of `marks` is settled; the count at each of them is kept."""
        async with AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(claimer(self.backlog.pool_id, self.backlog.database))
                for _ in range(WORKERS)
            ]
            await asyncio.gather(*(self._work(worker, sorted(marks)) for worker in workers))

    @property
    def twice(self) -> int:
        return sum(1 for times in self.seen.values() if times > 1)

    def gap_over_bound(self) -> float:
        """The largest gap of two clients of a tier, |A_i/w_i - A_j/w_j| over d(C/w_i + E/w_j). At most 1, says the law.

        d: most in flight of a client; C: the dearest job; E: the largest estimate charged; i is the one ahead.
        """
        weights = {runner.name: runner.weight for runner in RUNNERS}
        return max(
            gap / (self.most_held * (self.dearest / weights[ahead] + self.largest_estimate / weights[behind]))
            for (ahead, behind), gap in self.gaps.items()
        )

    async def _work(self, worker: Claimer, marks: Sequence[int]) -> None:
        held: list[tuple[Claimed, float]] = []
        while self.count.jobs < marks[-1]:
            while len(held) < IN_FLIGHT:
                [job], _ = await worker.claim_all(1)
                held.append((job, self._used(job)))
            job, used = held.pop(self._random.randrange(len(held)))
            await worker.settle_at([(job, used if self.is_corrected else None)])
            self._settled(job, used, marks)

    def _used(self, job: Claimed) -> float:
        runner = next(runner for runner in RUNNERS if runner.name == job.client)
        self.seen[job.id] += 1
        self._held[job.client] += 1
        self.most_held = max(self.most_held, self._held[job.client])
        estimate = job.est_input_tokens + job.est_output_tokens
        used = estimate * self._random.uniform(runner.low, runner.high)
        self.dearest, self.largest_estimate = max(self.dearest, used), max(self.largest_estimate, job.charged)
        return used

    def _settled(self, job: Claimed, used: float, marks: Sequence[int]) -> None:
        self._held[job.client] -= 1
        self.count.jobs += 1
        self.count.tokens[job.client] += used  # type: ignore[assignment]
        if self.count.jobs in marks:
            self.marks[self.count.jobs] = self.count.copy()
        if self.count.jobs <= marks[-1]:
            self._measure_gaps(job.tier)

    def _measure_gaps(self, tier: str) -> None:
        normal = {r.name: self.count.tokens[r.name] / r.weight for r in RUNNERS if r.tier == tier}
        for ahead, behind in itertools.permutations(normal, 2):
            gap = normal[ahead] - normal[behind]
            if gap > self.gaps.get((ahead, behind), 0):
                self.gaps[ahead, behind] = gap
