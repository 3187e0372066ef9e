"""The shares of what waits, before and after an edit: as the fair order would serve them."""

import random

import pytest

from llmjobs.admin.shares import CLIENTS_MAX, Change, Move, PoolMoves, Waiting, moves
from llmjobs.fairness import FairPool, Flow, Job, Tier

TIERS = {"gold": 4.0, "tin": 1.0}


def waiting(client: str, tier: str = "gold", weight: float = 1.0, queued: int = 10, pool: str = "gpt") -> Waiting:
    return Waiting(pool, client, tier, weight, queued)


def named(found: list[PoolMoves], what: str) -> dict[str, Move]:
    return {move.name: move for move in getattr(found[0], what)}


def test_a_tiers_share_is_its_weight_among_those_that_wait() -> None:
    found = moves([waiting("a"), waiting("b", "tin")], {**TIERS, "idle": 95.0}, Change(tier="tin", tier_weight=4.0))
    tiers = named(found, "tiers")
    assert (tiers["gold"].before, tiers["gold"].after) == (0.8, 0.5)
    assert (tiers["tin"].before, tiers["tin"].after) == (0.2, 0.5)
    assert "idle" not in tiers


def test_a_clients_share_is_its_part_of_its_tiers_part() -> None:
    flows = [waiting("a"), waiting("b"), waiting("c", "tin")]
    clients = named(moves(flows, TIERS, Change(client="a", client_weight=3.0)), "clients")
    assert clients["a"].before == pytest.approx(0.4)
    assert clients["a"].after == pytest.approx(0.6)
    assert clients["b"].after == pytest.approx(0.2)
    assert clients["c"].by == 0


def test_a_client_that_leaves_takes_its_tier_with_it_if_it_was_alone() -> None:
    flows = [waiting("a", "gold"), waiting("b", "tin"), waiting("c", "tin")]
    found = moves(flows, TIERS, Change(client="a", client_tier="tin"))
    tiers, clients = named(found, "tiers"), named(found, "clients")
    assert (tiers["gold"].before, tiers["gold"].after) == (0.8, 0.0)
    assert (tiers["tin"].before, tiers["tin"].after) == (0.2, 1.0)
    assert clients["a"].after == pytest.approx(1 / 3)
    assert clients["b"].after == pytest.approx(1 / 3)


def test_a_client_alone_in_its_tier_moves_nobody_by_its_weight() -> None:
    [pool] = moves([waiting("a"), waiting("b", "tin")], TIERS, Change(client="a", client_weight=100.0))
    assert not pool.is_moved


def test_models_are_apart_and_the_one_with_most_waiting_is_first() -> None:
    flows = [waiting("a", pool="small", queued=1), waiting("a", pool="large", queued=9), waiting("b", pool="large")]
    found = moves(flows, TIERS, Change(client="a", client_weight=3.0))
    assert [pool.pool for pool in found] == ["large", "small"]
    assert [pool.is_moved for pool in found] == [True, False]


def test_of_ten_thousand_clients_the_furthest_are_named_and_nobody_is_lost() -> None:
    flows = [waiting(f"c{number}", weight=1 + number % 7) for number in range(10_000)]
    [pool] = moves(flows, TIERS, Change(client="c3", client_weight=500.0))
    assert pool.clients[0].name == "c3"
    assert len(pool.clients) == CLIENTS_MAX
    assert pool.others is not None
    assert pool.others_count == 10_000 - CLIENTS_MAX
    for share in ("before", "after"):
        assert sum(getattr(move, share) for move in (*pool.clients, pool.others)) == pytest.approx(1)
    assert [abs(move.by) for move in pool.clients[1:]] == sorted((abs(m.by) for m in pool.clients[1:]), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_fair_order_serves_what_the_shares_say(seed: int) -> None:
    chance = random.Random(seed)
    tiers = {name: chance.choice([1.0, 2.0, 4.0]) for name in ("x", "y", "z")}
    flows = [waiting(f"c{i}", chance.choice(list(tiers)), chance.choice([1.0, 2.0, 3.0])) for i in range(6)]
    edited = Change(client="c0", client_weight=2.5, client_tier=chance.choice(list(tiers)))
    [found] = moves(flows, tiers, edited)
    after = {move.name: move.after for move in found.clients}
    ids = {name: number for number, name in enumerate(tiers)}
    pool = FairPool([Tier(ids[name], weight) for name, weight in tiers.items()])
    for number, flow in enumerate(edited.of(flow) for flow in flows):
        pool.add(Flow(number, pool.tiers[ids[flow.tier]], flow.weight))
        for order in range(600):
            pool.submit(Job(number * 1000 + order, number, 10.0, order))
    served = [charge.job.client for charge in pool.claim(500)]
    for number, flow in enumerate(flows):
        assert served.count(number) / 500 == pytest.approx(after[flow.client], abs=0.02)
