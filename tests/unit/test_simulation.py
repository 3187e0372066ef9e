"""The simulation's parts: loads from a seed, three rules of order, slots, and what is measured of them."""

from collections import Counter

import pytest

from llmjobs.simulation.measures import jain, percentile, simulated
from llmjobs.simulation.policies import FAIR, FIFO, POLICIES, ROUND_ROBIN, Fair, Fifo, RoundRobin
from llmjobs.simulation.running import alone, as_they_arrive, under_full_load
from llmjobs.simulation.workload import Call, Workload, by_chance, of_trace

OPTIONS = {"clients": 9, "skew": 1.1, "slots": 8, "load": 0.95, "weights": (16, 4, 1)}


def nobody(ended: float) -> None:
    pass


def load_of(*calls: Call, slots: int = 1, weights: tuple[float, ...] = (1.0,)) -> Workload:
    by_client = {client: [call for call in calls if call.client == client] for client in {c.client for c in calls}}
    return Workload(weights, slots, calls, by_client)


def call(number: int, client: int = 0, at_s: float = 0.0, output_tokens: int = 60) -> Call:
    return Call(number, client, at_s, 100, output_tokens)


def order(policy) -> list[int]:
    """Who is started, one after the other."""
    started = []
    while (next_call := policy.start()) is not None:
        policy.settle(next_call)
        started.append(next_call.client)
    return started


def test_the_same_seed_gives_the_same_load_and_another_seed_another():
    made = [by_chance(seed=seed, calls=200, **OPTIONS).calls for seed in (7, 7, 8)]
    assert made[0] == made[1] != made[2]


def test_a_load_arrives_in_order_and_asks_for_as_much_as_it_was_told():
    load = by_chance(seed=1, calls=2_000, **OPTIONS)
    at_s = [call.at_s for call in load.calls]
    assert at_s == sorted(at_s)
    busy_s = sum(call.service_s for call in load.calls)
    assert busy_s / load.slots / (at_s[-1] - at_s[0]) == pytest.approx(0.95)


def test_the_first_client_asks_most():
    counts = Counter(call.client for call in by_chance(seed=1, calls=5_000, **OPTIONS).calls)
    assert counts.most_common(1)[0][0] == 0
    assert counts[0] > 3 * counts[8]


def test_a_trace_keeps_its_sizes_and_its_rhythm():
    trace = [call(0, at_s=10), call(1, at_s=11, output_tokens=7), call(2, at_s=14)]
    load = of_trace(trace, seed=1, **OPTIONS)
    assert [made.output_tokens for made in load.calls] == [60, 7, 60]
    first, second, third = (made.at_s for made in load.calls)
    assert first == 0
    assert (third - first) / (second - first) == pytest.approx(4)


def test_a_call_without_tokens_costs_something_still():
    assert Call(0, 0, 0.0, 0, 0).cost == 1


def test_first_in_first_out_knows_no_clients():
    load = load_of(call(0, 1), call(1, 1), call(2, 2))
    policy = Fifo(load)
    for made in load.calls:
        policy.submit(made)
    assert order(policy) == [1, 1, 2]


def test_round_robin_takes_one_of_each_in_turn():
    load = load_of(call(0, 1), call(1, 1), call(2, 1), call(3, 2), call(4, 3), call(5, 2))
    policy = RoundRobin(load)
    for made in load.calls:
        policy.submit(made)
    assert order(policy) == [1, 2, 3, 1, 2, 1]


def test_the_fair_policy_is_the_fair_order():
    """Client 0 writes four times as much as client 1, and gets as many tokens."""
    calls = [call(number, number % 2, output_tokens=(1_000, 175)[number % 2]) for number in range(400)]
    load = load_of(*calls)
    policy = Fair(load)
    for made in load.calls:
        policy.submit(made)
    started = Counter(order(policy)[:200])
    assert started[0] * calls[0].cost == pytest.approx(started[1] * calls[1].cost, rel=0.05)


@pytest.mark.parametrize("name", POLICIES)
def test_no_slot_is_idle_while_a_call_waits(name):
    load = by_chance(seed=3, calls=300, **OPTIONS | {"load": 2.0})
    seen = as_they_arrive(load.calls, load.slots, POLICIES[name](load), nobody)
    assert sum(map(len, seen.waits_s.values())) == 300, "each is started once"
    assert min(min(waits_s) for waits_s in seen.waits_s.values()) >= 0
    longest_s = max(call.service_s for call in load.calls)
    ideal_s = sum(call.service_s for call in load.calls) / load.slots
    assert seen.took_s <= ideal_s + 2 * longest_s, "Graham's bound: at most the ideal and the longest call"


def test_a_wait_is_from_arrival_to_start():
    calls = [call(0, at_s=0.0), call(1, at_s=0.5)]
    took_s = calls[0].service_s
    assert alone(load_of(*calls), 0, nobody) == [0, pytest.approx(took_s - 0.5)]


def test_under_full_load_only_the_fair_order_keeps_to_weights_and_bound():
    figures = simulated(by_chance(seed=1, calls=2_000, **OPTIONS))
    fair, turns, fifo = (figures.policies[name] for name in (FAIR, ROUND_ROBIN, FIFO))
    assert fair.share_error < 0.03
    assert fair.jain > 0.99
    assert fair.largest_gap <= figures.gap_bound
    assert turns.share_error > 1 < fifo.share_error
    assert fifo.largest_gap > figures.gap_bound
    assert fifo.jain < 0.7


def test_a_light_client_does_not_wait_for_a_heavy_one():
    """One of 400 calls at once, one of a call now and then; the slots have work all the while."""
    flood = [call(number) for number in range(400)]
    drops = [call(400 + number, 1, at_s=number * 10.0) for number in range(20)]
    calls = sorted([*flood, *drops], key=lambda made: (made.at_s, made.id))
    load = load_of(*calls, slots=4)
    waits_s = {
        name: percentile(as_they_arrive(load.calls, load.slots, POLICIES[name](load), nobody).waits_s[1], 50)
        for name in (FAIR, FIFO)
    }
    service_s = calls[0].service_s
    assert waits_s[FAIR] <= service_s
    assert waits_s[FIFO] > 10 * service_s


def test_every_client_is_served_under_full_load_whatever_the_policy():
    load = by_chance(seed=2, calls=600, **OPTIONS)
    for policy in POLICIES.values():
        seen = under_full_load(load, policy(load), nobody)
        assert sum(seen.tiers) == pytest.approx(sum(seen.clients.values()))
        assert min(seen.clients.values()) > 0
        assert seen.curve[-1] == tuple(seen.tiers)


def test_a_tier_without_clients_is_owed_nothing():
    figures = simulated(by_chance(seed=1, calls=50, **OPTIONS | {"clients": 2}))
    assert figures.ideal_shares == pytest.approx((0.8, 0.2, 0))


@pytest.mark.parametrize(("shares", "index"), [([1, 1, 1, 1], 1), ([1, 0, 0, 0], 0.25), ([3, 1], 0.8), ([0, 0], 1)])
def test_jain_s_index_is_one_where_all_have_alike(shares, index):
    assert jain(shares) == pytest.approx(index)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (51, 3), (95, 4), (100, 4)])
def test_a_percentile_is_a_value_that_there_is(percent, value):
    assert percentile([4, 1, 3, 2], percent) == value
