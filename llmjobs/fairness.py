"""The fair order: reconciled virtual time on two levels. Pure: one pool in memory, a verb at a time, no clock.

Owns the rule. The claim follows it in SQL, over turns instead of objects (`sql/fair_order.sql`, `claim.sql`,
`fold.sql`); property tests hold that against this, and `manage.py simulatefairness` measures it against other rules.

A pool's tiers share it by weight, and a tier's flows (a client each) share that by weight, both in cost: weighted
tokens, not jobs. Whoever has a weight w has a virtual time F, the service that it has had by its weight:

    claim     F += e / w          the expected cost e, at once, so that what runs counts from its first moment
    settle    F += (a - e) / w    the actual cost a takes its place, by the weights that were charged
    wake      F  = max(F, V)      V is where its siblings are: no credit for having been idle, no history forgiven

Who is next: the tier with the least F that has a job to start; in it the most urgent rank; in that the flow with the
least F; in that the oldest job. Ranks are strict, so a lane that nobody serves rises by one each `aging_s`.

Invariant, for every flow and every tier: F - lifted is the sum of what was charged and not yet settled, or used, each
by its weight at the charge. From it follows, for two flows that could be claimed from all the while, with A the
settled cost, d the most jobs in flight of either, C the dearest job, E the largest expected cost:

    A_i / w_i - A_j / w_j  ≤  d · (C / w_i + E / w_j)
"""

import bisect
import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from llmjobs.states import Priority, Size

RANKS = {priority: rank for rank, priority in enumerate(Priority)}  # 0 is the most urgent
GUESS_JOBS, LESSONS_MAX = 4, 64  # the first guess counts as so many jobs; so many are remembered
RATIO_MIN, RATIO_MAX = 0.01, 100  # no single lesson teaches more


@dataclass(frozen=True, slots=True)
class Job:
    """`order` is FIFO inside a lane; `est_cost` in weighted tokens; `available_at_s` on whatever clock claims have."""

    id: int
    client: int
    est_cost: float
    order: int
    priority: Priority = Priority.NORMAL
    size: Size = Size.SHORT
    available_at_s: float = 0.0


@dataclass(slots=True, eq=False)
class Lane:
    """A flow's jobs of one priority and size, oldest first. `rank` is its priority's, raised by age."""

    rank: int
    jobs: list[Job] = field(default_factory=list)
    served_at_s: float = -math.inf


@dataclass(slots=True, eq=False)
class Tier:
    """`served_vt` is its own F, and `flows_vt` its flow's, when it was served last: V while nobody waits."""

    id: int
    weight: float = 1.0
    aging_s: float = 300.0  # 0: never
    vt: float = 0.0
    lifted: float = 0.0
    served_vt: float = 0.0
    flows_vt: float = 0.0


@dataclass(frozen=True, slots=True)
class Lessons:
    """What completed jobs taught of the next ones: actual by estimated cost. `weight` is in jobs."""

    weight: float = GUESS_JOBS
    cost_ratio: float = 1.0

    def after(self, est_cost: float, cost: float) -> "Lessons":
        """A mean while there are few, then one that forgets: the last `LESSONS_MAX` jobs count most."""
        if est_cost <= 0:
            return self
        lesson = min(max(cost / est_cost, RATIO_MIN), RATIO_MAX)
        ratio = self.cost_ratio + (lesson - self.cost_ratio) / (self.weight + 1)
        return Lessons(min(self.weight + 1, LESSONS_MAX), ratio)


@dataclass(slots=True, eq=False)
class Flow:
    """A client's share in the pool."""

    client: int
    tier: Tier
    weight: float = 1.0
    max_running: float = math.inf
    is_paused: bool = False
    vt: float = 0.0
    lifted: float = 0.0
    running: int = 0
    lessons: Lessons = Lessons()
    lanes: dict[tuple[Priority, Size], Lane] = field(default_factory=dict)

    @property
    def is_waiting(self) -> bool:
        return any(lane.jobs for lane in self.lanes.values())

    @property
    def is_open(self) -> bool:
        return not self.is_paused and self.running < self.max_running

    @property
    def is_ready(self) -> bool:
        return self.is_open and self.is_waiting

    def lane(self, job: Job) -> Lane:
        return self.lanes.setdefault((job.priority, job.size), Lane(RANKS[job.priority]))


@dataclass(frozen=True, slots=True)
class Charge:
    """What a started job was charged, and by which weights: settle corrects it by the same."""

    job: Job
    tier: Tier
    cost: float
    flow_weight: float
    tier_weight: float


class FairPool:
    """`lag_tokens`: how far a flow that was closed may lag when it opens, at a weight of 1."""

    def __init__(
        self, tiers: Iterable[Tier] = (), *, lag_tokens: float = math.inf, max_running: float = math.inf
    ) -> None:
        self.tiers = {tier.id: tier for tier in tiers}
        self.flows: dict[int, Flow] = {}
        self.lag_tokens = lag_tokens
        self.max_running = max_running

    def add(self, flow: Flow) -> Flow:
        """A client that is here for the first time. Idle: it wakes with its first job."""
        self.flows[flow.client] = flow
        self.tiers[flow.tier.id] = flow.tier
        return flow

    # What clients and workers do.

    def submit(self, job: Job) -> None:
        """Also for a job that comes back: it takes the place that its `order` gives it."""
        flow = self.flows[job.client]
        with self._changing(flow):
            bisect.insort(flow.lane(job).jobs, job, key=lambda other: other.order)

    def cancel(self, job: Job) -> None:
        flow = self.flows[job.client]
        with self._changing(flow):
            flow.lane(job).jobs.remove(job)

    def claim(
        self,
        count: int = 1,
        *,
        at_s: float | None = None,
        short_only: bool = False,
        tiers: Collection[int] | None = None,
    ) -> list[Charge]:
        """Starts up to `count` jobs, in fair order. `at_s`: look at ages first; a claim does so once."""
        if at_s is not None:
            self.age(at_s)
        charges: list[Charge] = []
        while len(charges) < count and (job := self.next(short_only=short_only, tiers=tiers)) is not None:
            charges.append(self.start(job, at_s))
        return charges

    def settle(self, charge: Charge, cost: float, *, is_lesson: bool = True) -> None:
        """The actual `cost`, whatever the end. Only a completed job is a lesson: a cut one says little of the next."""
        flow, tier = self.flows[charge.job.client], charge.tier
        with self._changing(flow):
            flow.running -= 1
            flow.vt += (cost - charge.cost) / charge.flow_weight
            tier.vt += (cost - charge.cost) / charge.tier_weight
            if is_lesson:
                flow.lessons = flow.lessons.after(charge.job.est_cost, cost)

    # What operators do. All of it acts on the backlog at the next claim.

    def pause(self, client: int, *, is_paused: bool = True) -> None:
        with self._changing(self.flows[client]) as flow:
            flow.is_paused = is_paused

    def resume(self, client: int) -> None:
        self.pause(client, is_paused=False)

    def limit(self, client: int, max_running: float) -> None:
        with self._changing(self.flows[client]) as flow:
            flow.max_running = max_running

    def weigh(self, client: int, weight: float) -> None:
        """What was charged was charged by the weight of then."""
        self.flows[client].weight = weight

    def move(self, client: int, tier: Tier) -> None:
        """To another tier: as far from the others' virtual time as it was from that of the tier it leaves."""
        self.tiers[tier.id] = tier
        with self._changing(self.flows[client], tier) as flow:
            flow.tier = tier

    # The order.

    def next(self, *, short_only: bool = False, tiers: Collection[int] | None = None) -> Job | None:
        """Who is next; None where nobody may be started."""
        if self.running >= self.max_running:
            return None
        flows = [flow for flow in self.flows.values() if flow.is_open and (tiers is None or flow.tier.id in tiers)]
        heads = (
            (flow, lane)
            for flow in flows
            for (_, size), lane in flow.lanes.items()
            if lane.jobs and not (short_only and size is Size.LONG)
        )
        first = min(heads, key=lambda head: self.place(*head), default=None)
        return first[1].jobs[0] if first else None

    def place(self, flow: Flow, lane: Lane) -> tuple[float, int, int, float, int]:
        """The whole rule: who has the least of these is next."""
        return flow.tier.vt, flow.tier.id, lane.rank, flow.vt, lane.jobs[0].order

    def start(self, job: Job, at_s: float | None = None) -> Charge:
        """Takes a lane's oldest job, and charges what it is expected to cost."""
        flow = self.flows[job.client]
        tier, lane = flow.tier, flow.lane(job)
        lane.jobs.remove(job)
        lane.rank = RANKS[job.priority]  # it was served: what it had risen by is spent
        if at_s is not None:
            lane.served_at_s = at_s
        tier.served_vt, tier.flows_vt = max(tier.served_vt, tier.vt), max(tier.flows_vt, flow.vt)
        charge = Charge(job, tier, job.est_cost * flow.lessons.cost_ratio, flow.weight, tier.weight)
        flow.running += 1
        flow.vt += charge.cost / charge.flow_weight
        tier.vt += charge.cost / charge.tier_weight
        return charge

    @property
    def running(self) -> int:
        return sum(flow.running for flow in self.flows.values())

    def age(self, at_s: float) -> None:
        """A lane rises by a rank each `aging_s` in which its head was there and nothing of it was started.

        Not by the age of its jobs: then the old jobs of a long queue would go before all that is new, and who
        queued most would be served most.
        """
        for flow in self.flows.values():
            for (priority, _), lane in flow.lanes.items():
                lane.rank = RANKS[priority]
                if lane.jobs and flow.tier.aging_s > 0:
                    waited_s = at_s - max(lane.jobs[0].available_at_s, lane.served_at_s)
                    lane.rank = max(0, lane.rank - max(0, int(waited_s // flow.tier.aging_s)))

    # Waking, opening, moving: where a virtual time is lifted.

    def flows_vt(self, tier: Tier) -> float:
        """V of a tier's flows: the least F among those that are ready, at all ranks, or of the one served last."""
        ready = (flow.vt for flow in self.flows.values() if flow.tier is tier and flow.is_ready)
        return min(ready, default=tier.flows_vt)

    def tiers_vt(self, ready: Collection[int]) -> float:
        """V of the tiers: the least F among those that are ready, or of the one served last."""
        served_vt = max(tier.served_vt for tier in self.tiers.values())
        return min((self.tiers[tier].vt for tier in ready), default=served_vt)

    @contextmanager
    def _changing(self, flow: Flow, to: Tier | None = None) -> Iterator[Flow]:
        """Around a change of one flow: lifts the flow, and its tier, by what the change calls for."""
        tier = to or flow.tier
        if flow.is_ready and tier is flow.tier:  # it neither wakes nor opens nor moves
            yield flow
            return
        was_waiting, was_open = flow.is_waiting, flow.is_open
        old_v, new_v = self.flows_vt(flow.tier), self.flows_vt(tier)
        ready_tiers = {other.tier.id for other in self.flows.values() if other.is_ready}
        is_move = tier is not flow.tier
        yield flow
        if is_move:
            _lift(flow, new_v - old_v)
        elif flow.is_waiting and not was_waiting:
            _lift(flow, max(new_v - flow.vt, 0))
        elif flow.is_ready and not was_open:
            _lift(flow, max(new_v - self.lag_tokens / flow.weight - flow.vt, 0))
        if flow.is_ready and tier.id not in ready_tiers:
            _lift(tier, max(self.tiers_vt(ready_tiers) - tier.vt, 0))


def _lift(share: Flow | Tier, by: float) -> None:
    share.vt += by
    share.lifted += by
