"""The laws of the fair order, for any costs, weights and ends: on the model, which the SQL is held against."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.fairness import Charge, FairPool, Flow, Job, Tier
from llmjobs.states import Priority, Size

COSTS = st.floats(1, 31)
WEIGHTS = st.sampled_from([0.5, 1, 2, 3, 7])
EFFORT = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass
class Load:
    """Some clients of one tier that always wait; `slots` run at once, and end in an order that `ends` decides."""

    weights: Sequence[float]
    costs: Sequence[Sequence[tuple[float, float]]]  # by client: (expected, actual), taken in turn
    ends: Sequence[int]
    slots: int


LOADS = st.builds(
    Load,
    weights=st.lists(WEIGHTS, min_size=2, max_size=4),
    costs=st.lists(st.lists(st.tuples(COSTS, COSTS), min_size=1, max_size=4), min_size=4, max_size=4),
    ends=st.lists(st.integers(0, 99), min_size=1, max_size=12),
    slots=st.integers(1, 8),
)


class Ledger:
    """What was charged and what was used, from outside of the model."""

    def __init__(self) -> None:
        self.used: dict[int, float] = defaultdict(float)
        self.running: list[Charge] = []
        self.most_in_flight = 0
        self.dearest = self.largest_estimate = 0.0

    def start(self, charge: Charge) -> None:
        self.running.append(charge)
        mine = sum(other.job.client == charge.job.client for other in self.running)
        self.most_in_flight = max(self.most_in_flight, mine)
        self.largest_estimate = max(self.largest_estimate, charge.cost)

    def settle(self, charge: Charge, cost: float) -> None:
        self.running.remove(charge)
        self.used[charge.job.client] += cost
        self.dearest = max(self.dearest, cost)


def run(load: Load, jobs: int, *, is_corrected: bool = True) -> Iterator[Ledger]:
    """After every settle of `jobs`. Each client always has more waiting than there are slots."""
    tier = Tier(1)
    pool, ledger = FairPool([tier]), Ledger()
    numbers, ends = itertools.count(), itertools.cycle(load.ends)
    costs = [itertools.cycle(mine) for mine in load.costs]
    actual: dict[int, float] = {}

    def submit(client: int) -> None:
        expected, cost = next(costs[client])
        job = Job(next(numbers), client, expected, len(actual))
        actual[job.id] = cost
        pool.submit(job)

    for client, weight in enumerate(load.weights):
        pool.add(Flow(client, tier, weight))
        for _ in range(load.slots + 1):
            submit(client)
    for _ in range(jobs):
        for charge in pool.claim(load.slots - len(ledger.running)):
            ledger.start(charge)
            submit(charge.job.client)
        charge = ledger.running[next(ends) % len(ledger.running)]
        cost = actual[charge.job.id]
        ledger.settle(charge, cost)
        pool.settle(charge, cost if is_corrected else charge.cost, is_lesson=is_corrected)
        yield ledger


@EFFORT
@given(LOADS)
def test_the_gap_of_two_that_always_wait_stays_under_its_bound(load):
    for ledger in run(load, 150):
        d, dearest, largest = ledger.most_in_flight, ledger.dearest, ledger.largest_estimate
        shares = [(ledger.used[client] / weight, weight) for client, weight in enumerate(load.weights)]
        for (a, w_a), (b, w_b) in itertools.permutations(shares, 2):
            assert a - b <= d * (dearest / w_a + largest / w_b) + 1e-6


def test_without_the_correction_at_settle_the_gap_has_no_bound():
    """One uses 31 times what the other does, and both are expected to use the same. The law has teeth."""

    def gaps(*, is_corrected: bool) -> list[float]:
        load = Load([1, 1], [[(10, 1)], [(10, 31)]], [0], slots=2)
        return [ledger.used[1] - ledger.used[0] for ledger in run(load, 600, is_corrected=is_corrected)]

    bound = 2 * (31 + 31)
    assert max(map(abs, gaps(is_corrected=True))) <= bound
    diverging = gaps(is_corrected=False)
    assert diverging[-1] > 50 * bound
    assert all(later > earlier + bound for earlier, later in itertools.pairwise(diverging[::50]))


class Verbs:
    """All verbs by number, over three clients and two tiers; the ledger is kept outside of the model."""

    def __init__(self, lag_tokens: float) -> None:
        self.tiers = [Tier(1, 16), Tier(2, 1)]
        self.pool = FairPool(self.tiers, lag_tokens=lag_tokens)
        for client in range(3):
            self.pool.add(Flow(client, self.tiers[client % 2]))
        self.numbers = itertools.count()
        self.running: list[Charge] = []
        self.flow_used: dict[int, float] = defaultdict(float)
        self.tier_used: dict[int, float] = defaultdict(float)

    def do(self, verb: int, client: int, value: float) -> None:
        pool, flow = self.pool, self.pool.flows[client]
        match verb:
            case 0 | 1:
                priority = list(Priority)[int(value) % 5]
                number = next(self.numbers)
                pool.submit(Job(number, client, value, number, priority, Size(int(value) % 2), available_at_s=number))
            case 2 | 3:
                for charge in pool.claim(1 + int(value) % 3, at_s=next(self.numbers)):
                    self.running.append(charge)
                    self._use(charge, charge.cost)
            case 4 | 5 if self.running:
                charge = self.running.pop(int(value) % len(self.running))
                pool.settle(charge, value - 1, is_lesson=client > 0)
                self._use(charge, value - 1 - charge.cost)
            case 6:
                pool.pause(client, is_paused=not flow.is_paused)
            case 7:
                pool.limit(client, math.inf if value > 16 else 1)
            case 8:
                pool.weigh(client, value)
            case 9:
                pool.move(client, self.tiers[int(value) % 2])
            case 10:
                jobs = [job for lane in flow.lanes.values() for job in lane.jobs]
                if jobs:
                    pool.cancel(jobs[int(value) % len(jobs)])

    def _use(self, charge: Charge, cost: float) -> None:
        self.flow_used[charge.job.client] += cost / charge.flow_weight
        self.tier_used[charge.tier.id] += cost / charge.tier_weight


STEPS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2), COSTS), max_size=60)


@EFFORT
@given(STEPS, st.sampled_from([0, 20, math.inf]))
def test_virtual_time_less_its_lifts_is_what_was_used_by_weight(steps, lag_tokens):
    verbs = Verbs(lag_tokens)
    for step in steps:
        verbs.do(*step)
        for client, flow in verbs.pool.flows.items():
            assert flow.vt - flow.lifted == pytest.approx(verbs.flow_used[client], abs=1e-6)
        for tier in verbs.tiers:
            assert tier.vt - tier.lifted == pytest.approx(verbs.tier_used[tier.id], abs=1e-6)


@EFFORT
@given(STEPS)
def test_no_slot_stays_idle_while_a_job_may_be_started(steps):
    verbs = Verbs(0)
    for step in steps:
        verbs.do(*step)
        if any(flow.is_ready for flow in verbs.pool.flows.values()):
            assert verbs.pool.next() is not None


@EFFORT
@given(STEPS, st.integers(1, 6))
def test_one_claim_of_many_takes_what_many_claims_of_one_take(steps, count):
    one, many = Verbs(20), Verbs(20)
    for step in steps:
        one.do(*step)
        many.do(*step)
    singly = [charge for _ in range(count) for charge in one.pool.claim()]
    assert [charge.job for charge in many.pool.claim(count)] == [charge.job for charge in singly]


@EFFORT
@given(
    busy=st.lists(st.tuples(COSTS, COSTS), min_size=5, max_size=60),
    costs=st.lists(COSTS, min_size=1, max_size=10),
    weights=st.tuples(WEIGHTS, WEIGHTS),
)
def test_who_was_idle_gets_its_share_and_no_more(busy, costs, weights):
    """However long it was away: never further ahead than by the bound of two that always waited."""
    tier = Tier(1)
    pool = FairPool([tier])
    busy_weight, idle_weight = weights
    pool.add(Flow(1, tier, busy_weight))
    pool.add(Flow(2, tier, idle_weight))
    for number, (expected, _) in enumerate(busy * 3):
        pool.submit(Job(number, 1, expected, number))
    for _, actual in busy:
        [charge] = pool.claim()
        pool.settle(charge, actual)
    for number in range(200):
        pool.submit(Job(1_000 + number, 2, costs[number % len(costs)], number))
    used = {1: 0.0, 2: 0.0}
    largest = 0.0
    for _ in range(len(busy)):
        [charge] = pool.claim()
        pool.settle(charge, charge.cost)
        used[charge.job.client] += charge.cost
        largest = max(largest, charge.cost)
        ahead = used[2] / idle_weight - used[1] / busy_weight
        assert ahead <= largest * (1 / idle_weight + 1 / busy_weight) + 1e-6


@EFFORT
@given(st.integers(2, 50), st.lists(COSTS, min_size=1, max_size=10))
def test_who_spreads_over_many_lanes_gains_nothing(lanes, costs):
    """A client is one flow, however many keys, priorities or sizes its jobs have, for as long as ranks are equal."""
    tier = Tier(1)
    pool = FairPool([tier])
    for client in range(2):
        pool.add(Flow(client, tier))
    for number in range(200):
        cost = costs[number % len(costs)]
        pool.submit(Job(number, 0, cost, number, size=Size(number % lanes % 2)))
        pool.submit(Job(1_000 + number, 1, cost, number))
    used = [0.0, 0.0]
    for _ in range(100):
        [charge] = pool.claim()
        pool.settle(charge, charge.cost)
        used[charge.job.client] += charge.cost
        assert used[0] - used[1] <= 2 * max(costs)


@EFFORT
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(Priority)), min_size=1, max_size=30))
def test_ranks_are_strict_and_a_client_s_jobs_of_one_rank_are_first_in_first_out(submitted):
    tier = Tier(1)
    pool = FairPool([tier])
    for client in range(3):
        pool.add(Flow(client, tier))
    for number, (client, priority) in enumerate(submitted):
        pool.submit(Job(number, client, 1.0, number, priority))
    order = [charge.job for charge in pool.claim(99)]
    assert len(order) == len(submitted)
    assert [job.priority for job in order] == sorted(job.priority for job in order)
    for client, priority in {(job.client, job.priority) for job in order}:
        numbers = [job.order for job in order if (job.client, job.priority) == (client, priority)]
        assert numbers == sorted(numbers)


@EFFORT
@given(st.lists(COSTS, min_size=1, max_size=8), st.integers(1, 8), st.integers(1, 4))
def test_tiers_share_by_weight_whatever_their_jobs_cost(costs, slots, clients):
    tiers = [Tier(1, 16), Tier(2, 4), Tier(3, 1)]
    pool = FairPool(tiers)
    numbers, cycle = itertools.count(), itertools.cycle(costs)
    for client in range(3 * clients):
        pool.add(Flow(client, tiers[client % 3]))

    def submit(client: int) -> None:
        number = next(numbers)
        pool.submit(Job(number, client, next(cycle), number))

    for client in range(3 * clients):
        for _ in range(slots + 1):
            submit(client)
    used, running = dict.fromkeys([1, 2, 3], 0.0), []
    for _ in range(300):
        for charge in pool.claim(slots - len(running)):
            running.append(charge)
            submit(charge.job.client)
        charge = running.pop(0)
        pool.settle(charge, charge.cost)
        used[charge.tier.id] += charge.cost
        for one, other in itertools.permutations(tiers, 2):
            gap = used[one.id] / one.weight - used[other.id] / other.weight
            assert gap <= slots * max(costs) * (1 / one.weight + 1 / other.weight) + 1e-6
