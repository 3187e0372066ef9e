"""The fair order as a model: what each verb does to virtual times, and who is next."""

import itertools
from collections import Counter

import pytest

from llmjobs.fairness import LESSONS_MAX, RATIO_MAX, RATIO_MIN, Charge, FairPool, Flow, Job, Lessons, Tier
from llmjobs.states import Priority, Size

COST = 100.0


class Ground:
    """A pool with tiers of weights 16, 4 and 1, and jobs that cost what they were expected to."""

    def __init__(self, **pool) -> None:
        self.tiers = {name: Tier(n, weight) for n, (name, weight) in enumerate([("top", 16), ("mid", 4), ("low", 1)])}
        self.pool = FairPool(self.tiers.values(), **pool)
        self.ids = itertools.count(1)
        self.charges: list[Charge] = []

    def flow(self, client: int, tier: str = "mid", **fields) -> Flow:
        return self.pool.add(Flow(client, self.tiers[tier], **fields))

    def submit(self, client: int, count: int = 1, cost: float = COST, **fields) -> list[Job]:
        jobs = [Job(number, client, cost, number, **fields) for number in itertools.islice(self.ids, count)]
        for job in jobs:
            self.pool.submit(job)
        return jobs

    def claim(self, count: int = 1, **options) -> list[int]:
        """Whose jobs were started."""
        charges = self.pool.claim(count, **options)
        self.charges += charges
        return [charge.job.client for charge in charges]

    def serve(self, count: int, **options) -> Counter[int]:
        served: Counter[int] = Counter()
        for _ in range(count):
            [client] = self.claim(**options)
            self.settle()
            served[client] += 1
        return served

    def settle(self, cost: float | None = None) -> None:
        """Of all that runs; `cost`: other than it was charged."""
        for charge in self.charges:
            self.pool.settle(charge, charge.cost if cost is None else cost)
        self.charges.clear()


@pytest.fixture
def ground() -> Ground:
    return Ground()


def test_strict_priority_goes_first_and_then_clients_take_turns(ground):
    for client in (1, 2, 3):
        ground.flow(client)
    ground.submit(1, priority=Priority.HIGH)
    ground.submit(1)
    ground.submit(2, priority=Priority.HIGH)
    ground.submit(2)
    ground.submit(3, priority=Priority.CRITICAL)
    assert ground.claim(5) == [3, 1, 2, 1, 2]


def test_tiers_share_by_weight(ground):
    for client, tier in enumerate(ground.tiers):
        ground.flow(client, tier)
        ground.submit(client, 200)
    assert ground.serve(210) == {0: 160, 1: 40, 2: 10}


def test_clients_of_a_tier_share_by_weight(ground):
    for client, weight in enumerate([1, 2, 5]):
        ground.flow(client, weight=weight)
        ground.submit(client, 100)
    assert ground.serve(80) == {0: 10, 1: 20, 2: 50}


def test_shares_are_in_cost_not_in_jobs(ground):
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 100, cost=300)
    ground.submit(2, 100, cost=100)
    assert ground.serve(80) == {1: 20, 2: 60}


def test_what_was_used_counts_not_what_was_guessed(ground):
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 100)
    ground.submit(2, 100)
    served: Counter[int] = Counter()
    for _ in range(80):
        [client] = ground.claim()
        ground.settle(COST * (1.5 if client == 1 else 0.5))
        served[client] += 1
    assert served == {1: 20, 2: 60}


def test_a_correction_goes_to_the_weights_and_the_tier_that_were_charged(ground):
    flow = ground.flow(1, "mid", weight=2)
    ground.submit(1, 2)
    ground.claim()
    ground.pool.weigh(1, 5)
    ground.pool.move(1, ground.tiers["low"])
    before, moved_by = ground.tiers["low"].vt, flow.lifted
    ground.settle(COST + 60)
    assert flow.vt == pytest.approx((COST + 60) / 2 + moved_by)
    assert ground.tiers["mid"].vt == pytest.approx((COST + 60) / 4)
    assert ground.tiers["low"].vt == before


def test_who_was_idle_has_saved_nothing(ground):
    idle = ground.flow(1)
    ground.flow(2)
    ground.submit(1)
    ground.submit(2, 200)
    ground.serve(101)
    ground.submit(1, 50)
    assert idle.lifted > 0
    assert ground.serve(20) == {1: 10, 2: 10}


def test_who_leaves_after_too_much_comes_back_behind_the_others(ground):
    ground.flow(1)
    ground.flow(2)
    ground.submit(1)
    ground.submit(2, 100)
    assert ground.claim() == [1]
    ground.settle(COST * 20)
    ground.submit(1, 50)
    assert ground.serve(20) == {2: 20}


def test_an_unused_priority_lends_no_credit(ground):
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 200)
    ground.serve(100)
    ground.submit(2, 50, priority=Priority.BACKGROUND)
    ground.submit(2, 50)
    assert ground.serve(20) == {1: 10, 2: 10}


def test_after_all_were_idle_nobody_is_behind(ground):
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 50)
    ground.serve(50)
    ground.submit(2, 50)
    ground.submit(1, 50)
    assert ground.serve(20)[1] == pytest.approx(10, abs=1)


def test_an_idle_tier_saves_nothing(ground):
    ground.tiers["top"].weight = 1
    ground.flow(1, "low")
    ground.flow(2, "top")
    ground.submit(1)
    ground.submit(2, 200)
    ground.serve(101)
    ground.submit(1, 50)
    assert ground.serve(20) == {1: 10, 2: 10}


def test_a_flow_that_was_paused_catches_up_by_so_much_and_no_more():
    ground = Ground(lag_tokens=5 * COST)
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 100)
    ground.submit(2, 300)
    ground.serve(2)
    ground.pool.pause(1)
    assert ground.serve(100) == {2: 100}
    ground.pool.resume(1)
    assert ground.serve(25) == {1: 15, 2: 10}


def test_a_flow_at_its_running_limit_is_passed_over_until_one_ends():
    ground = Ground(lag_tokens=0)
    ground.flow(1, max_running=1)
    ground.flow(2)
    ground.submit(1, 9)
    ground.submit(2, 9)
    assert ground.claim(4) == [1, 2, 2, 2]
    ground.settle()
    assert ground.claim(2) == [1, 2], "with no lag allowed it begins where the others are"


def test_a_pool_at_its_limit_starts_nothing():
    ground = Ground(max_running=2)
    ground.flow(1)
    ground.submit(1, 9)
    assert len(ground.claim(9)) == 2
    assert ground.claim(9) == []


def test_who_changes_tier_keeps_its_distance(ground):
    mover, stayer = ground.flow(1, "low"), ground.flow(2, "low")
    ground.flow(3, "top")
    for client in (1, 2, 3):
        ground.submit(client, 100)
    ground.serve(50)
    ahead = mover.vt - min(mover.vt, stayer.vt)
    least = min(flow.vt for flow in ground.pool.flows.values() if flow.tier is ground.tiers["top"])
    ground.pool.move(1, ground.tiers["top"])
    assert mover.vt - least == pytest.approx(ahead)


def test_short_only_takes_no_long_job(ground):
    ground.flow(1)
    ground.submit(1, size=Size.LONG)
    ground.submit(1, size=Size.SHORT)
    assert len(ground.claim(9, short_only=True)) == 1
    assert len(ground.claim(9)) == 1


def test_a_dedicated_worker_serves_its_tiers_only(ground):
    ground.flow(1, "top")
    ground.flow(2, "low")
    ground.submit(1, 3)
    ground.submit(2, 3)
    assert ground.claim(9, tiers={ground.tiers["low"].id}) == [2, 2, 2]


def test_a_job_that_comes_back_takes_its_old_place(ground):
    ground.flow(1)
    first, second = ground.submit(1, 2)
    ground.claim()
    ground.settle()
    ground.pool.submit(first)
    assert [ground.pool.next(), ground.pool.claim(2)[1].job] == [first, second]


def test_a_cancelled_job_is_not_started(ground):
    ground.flow(1)
    [first, second] = ground.submit(1, 2)
    ground.pool.cancel(first)
    assert ground.pool.next() == second


def test_a_lane_that_nobody_serves_rises_until_it_is(ground):
    ground.tiers["mid"].aging_s = 60
    ground.flow(1)
    ground.submit(1, 1, priority=Priority.BACKGROUND, available_at_s=0)
    [starved] = list(ground.pool.flows[1].lanes.values())
    ground.submit(1, 999, priority=Priority.NORMAL, available_at_s=0)
    for at_s in range(300):
        ground.claim(at_s=at_s)
        ground.settle()
    assert starved.jobs == []
    ground.submit(1, 2, priority=Priority.BACKGROUND, available_at_s=300)
    ground.pool.age(301)
    assert starved.rank == 4, "served, and the next one is new"


def test_aging_can_be_switched_off(ground):
    ground.tiers["mid"].aging_s = 0
    ground.flow(1)
    ground.submit(1, 1, priority=Priority.LOW)
    ground.pool.age(1e9)
    assert [lane.rank for lane in ground.pool.flows[1].lanes.values()] == [3]


def test_the_age_of_a_long_queue_does_not_hold_up_the_newcomer(ground):
    """Hours of waiting are the flood's own: its lane is served all the while, so it does not rise over others."""
    ground.tiers["mid"].aging_s = 60
    ground.flow(1)
    ground.flow(2)
    ground.submit(1, 1_000, available_at_s=0)
    for at_s in range(600):
        ground.claim(at_s=at_s)
        ground.settle()
    ground.submit(2, 5, available_at_s=600)
    assert ground.claim(4, at_s=600) in ([1, 2, 1, 2], [2, 1, 2, 1])


def test_the_first_guess_counts_as_four_jobs_and_the_last_64_teach_most():
    lessons = Lessons()
    for _ in range(4):
        lessons = lessons.after(100, 300)
    assert lessons.cost_ratio == pytest.approx((4 * 1 + 4 * 3) / 8)
    for _ in range(1_000):
        lessons = lessons.after(100, 50)
    assert lessons.weight == LESSONS_MAX
    assert lessons.cost_ratio == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("cost", "ratio"), [(0, RATIO_MIN), (1e9, RATIO_MAX)])
def test_no_single_lesson_teaches_beyond_its_bounds(cost, ratio):
    assert Lessons().after(1, cost).cost_ratio == pytest.approx(1 + (ratio - 1) / 5)


def test_a_job_that_was_expected_to_cost_nothing_teaches_nothing():
    assert Lessons().after(0, 10) == Lessons()


def test_the_next_job_is_charged_what_the_last_ones_taught(ground):
    ground.flow(1)
    ground.submit(1, 2)
    ground.claim()
    ground.settle(COST * 6)
    [charge] = ground.pool.claim()
    assert charge.cost == pytest.approx(COST * 2)


def test_a_job_that_was_cut_short_is_charged_but_no_lesson(ground):
    flow = ground.flow(1)
    ground.submit(1)
    [charge] = ground.pool.claim()
    ground.pool.settle(charge, 7, is_lesson=False)
    assert flow.lessons == Lessons()
    assert flow.vt == pytest.approx(7)


def test_after_all_were_idle_no_tier_is_behind(ground):
    ground.tiers["top"].weight = 1
    ground.flow(1, "low")
    ground.flow(2, "top")
    ground.submit(1, 50)
    ground.serve(50)
    ground.submit(2, 50)
    ground.submit(1, 50)
    assert ground.serve(20)[1] == pytest.approx(10, abs=1)


def test_age_raises_no_lane_above_the_most_urgent(ground):
    flow = ground.flow(1)
    ground.submit(1, priority=Priority.BACKGROUND)
    ground.pool.age(1e9)
    assert [lane.rank for lane in flow.lanes.values()] == [0]
