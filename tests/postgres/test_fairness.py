"""Fair shares between two claims and over many: by weight, in tokens, with no credit for having been idle."""

from collections import Counter

import pytest

from llmjobs.access import check_key
from llmjobs.models import Client, Model, Tier
from llmjobs.states import State
from tests.factories import make_client, make_key, make_model
from tests.hands import Hand, settlement, submit
from tests.properties.ground import check_floors, check_identity

pytestmark = pytest.mark.django_db(transaction=True)


def served(
    hand: Hand, pool: Model, count: int, *, factors: dict[str, float] | None = None, size: int = 1
) -> Counter[str]:
    """Claims and settles `count` jobs, `size` at a time; `factors`: actual cost by estimate, by client."""
    by_client: Counter[str] = Counter()
    while by_client.total() < count:
        claimed = hand.claim(pool, size)
        assert claimed, f"nothing to claim after {by_client}"
        for job in claimed:
            by_client[job.client] += 1
        hand.settle_all(
            [_ended(job, (factors or {}).get(job.client, 1.0)) for job in claimed],
        )
    return by_client


def _ended(job, factor):
    """Used is a factor of what was estimated: what is charged follows what was used before."""
    return settlement(job, cost=(job.est_input_tokens + job.est_output_tokens) * factor)


def test_clients_of_a_tier_share_by_weight(hand, pool):
    for name, weight in (("a", 1), ("b", 2), ("c", 5)):
        submit(make_client(name, tier="pro", weight=weight), pool, 300)
    shares = served(hand, pool, 240)
    assert [shares[name] for name in "abc"] == pytest.approx([30, 60, 150], abs=2)


def test_tiers_share_by_weight(hand, pool):
    for name in ("free", "pro", "enterprise"):
        submit(make_client(name, tier=name), pool, 300)
    shares = served(hand, pool, 210)
    assert [shares[name] for name in ("free", "pro", "enterprise")] == pytest.approx([10, 40, 160], abs=2)


def test_a_tier_s_share_does_not_grow_with_its_clients(hand, pool):
    for n in range(20):
        submit(make_client(f"crowd{n}", tier="pro"), pool, 20)
    Tier.objects.filter(name="free").update(weight=4)
    submit(make_client("alone", tier="free"), pool, 200)
    assert served(hand, pool, 200)["alone"] == pytest.approx(100, abs=2)


def test_shares_are_in_tokens_not_in_jobs(hand, pool):
    submit(make_client("wordy", tier="pro"), pool, 100, body={"messages": [{"role": "user", "content": "x" * 4_000}]})
    submit(make_client("terse", tier="pro"), pool, 400)
    shares = served(hand, pool, 200)
    wordy, terse = 1_000 + 4 + 256, 4 + 4 + 256
    assert shares["wordy"] * wordy == pytest.approx(shares["terse"] * terse, rel=0.05)


def test_what_was_used_counts_not_what_was_guessed(hand, pool):
    """Without the correction at settle the shares would be equal: half and half."""
    for name in ("thrifty", "lavish"):
        submit(make_client(name, tier="pro"), pool, 300)
    shares = served(hand, pool, 200, factors={"thrifty": 0.5, "lavish": 1.5})
    assert shares["thrifty"] == pytest.approx(150, abs=3)
    check_identity()


def test_a_client_that_spreads_over_many_keys_gains_nothing(hand, pool):
    """A share is the client's, whichever of its keys a job came by."""
    many, one = make_client("many", tier="pro"), make_client("one", tier="pro")
    for key in [make_key(many) for _ in range(50)]:
        submit(check_key(key).client, pool, 4)
    submit(check_key(make_key(one)).client, pool, 200)
    assert served(hand, pool, 100)["many"] == pytest.approx(50, abs=1)


def test_an_idle_client_saves_no_credit(hand, pool):
    busy, idle = make_client("busy", tier="pro"), make_client("idle", tier="pro")
    submit(idle, pool)
    submit(busy, pool, 300)
    served(hand, pool, 101)
    submit(idle, pool, 100)
    shares = served(hand, pool, 20)
    assert shares["idle"] == pytest.approx(10, abs=1), "it was away for 100 turns, and gets none of them back"


def test_a_new_client_gets_no_more_than_its_share(hand, pool):
    submit(make_client("old", tier="pro"), pool, 300)
    served(hand, pool, 100)
    submit(make_client("new", tier="pro"), pool, 100)
    assert served(hand, pool, 20)["new"] == pytest.approx(10, abs=1)


def test_a_returning_client_s_history_is_not_forgiven(hand, pool):
    """Who was served beyond its share, and leaves for a moment, comes back behind the others."""
    greedy, other = make_client("greedy", tier="pro"), make_client("other", tier="pro")
    submit(greedy, pool)
    submit(other, pool, 100)
    [job] = [job for job in hand.claim(pool, 2) if job.client == "greedy"]
    hand.settle(job, cost=job.charged * 20)
    submit(greedy, pool, 50)
    assert served(hand, pool, 15)["greedy"] == 0


def test_a_priority_that_nobody_used_lends_no_credit(hand, pool):
    """Its floor is the beginning of time; virtual time is that of the flows, at all priorities."""
    submit(make_client("steady", tier="enterprise"), pool, 300)
    served(hand, pool, 100)
    late = make_client("late", tier="enterprise")
    submit(late, pool, 100, priority="low")
    submit(late, pool, 100)
    assert served(hand, pool, 20)["late"] == pytest.approx(10, abs=1)


def test_an_idle_tier_saves_no_credit(hand, pool):
    Tier.objects.update(weight=1)
    idle = make_client("idle", tier="free")
    submit(idle, pool)
    submit(make_client("busy", tier="pro"), pool, 300)
    served(hand, pool, 101)
    submit(idle, pool, 100)
    assert served(hand, pool, 20)["idle"] == pytest.approx(10, abs=1)


def test_after_everybody_was_idle_shares_begin_even(hand, pool):
    one, two = make_client("one", tier="pro"), make_client("two", tier="pro")
    submit(one, pool, 50)
    served(hand, pool, 50)
    hand.claim(pool)
    submit(two, pool, 50)
    submit(one, pool, 50)
    assert served(hand, pool, 20)["one"] == pytest.approx(10, abs=1)


def test_a_client_back_from_a_pause_catches_up_only_so_far(hand, pool, settings):
    settings.LLMJOBS_LAG_TOKENS = 264.0 * 5  # five jobs' worth
    paused = make_client("paused", tier="pro")
    submit(paused, pool, 100)
    submit(make_client("busy", tier="pro"), pool, 300)
    served(hand, pool, 2)
    Client.objects.filter(name="paused").update(is_paused=True)
    served(hand, pool, 100)
    Client.objects.filter(name="paused").update(is_paused=False)
    shares = served(hand, pool, 25)
    assert shares["paused"] == pytest.approx(15, abs=1), "five turns ahead, then every other one"


def test_a_change_of_weight_acts_on_the_backlog_at_once(hand, pool):
    for name in ("a", "b"):
        submit(make_client(name, tier="pro"), pool, 300)
    served(hand, pool, 50)
    Client.objects.filter(name="a").update(weight=4)
    assert served(hand, pool, 100)["a"] == pytest.approx(80, abs=3)


def test_a_change_of_a_tier_s_weight_acts_on_the_backlog_at_once(hand, pool):
    for name in ("pro", "free"):
        submit(make_client(name, tier=name), pool, 300)
    served(hand, pool, 50)
    Tier.objects.filter(name="free").update(weight=4)
    assert served(hand, pool, 100)["free"] == pytest.approx(50, abs=3)


def test_a_client_keeps_its_distance_when_it_changes_tier(hand, pool):
    """Neither the old tier's time nor a fresh start: it is as far ahead or behind as it was."""
    for n in range(2):
        submit(make_client(f"pro{n}", tier="pro"), pool, 300)
        submit(make_client(f"free{n}", tier="free"), pool, 300)
    served(hand, pool, 200)
    Client.objects.filter(name="free0").update(tier=Tier.objects.get(name="pro"))
    shares = served(hand, pool, 100)
    assert shares["free0"] == pytest.approx((shares["pro0"] + shares["pro1"]) / 2, abs=2)
    check_floors()
    check_identity()


def test_one_client_s_lanes_share_what_the_client_gets(hand, pool):
    spread = make_client("spread", tier="enterprise")
    for priority in ("critical", "high", "normal", "low", "background"):
        submit(spread, pool, 60, priority=priority)
        submit(spread, pool, 60, priority=priority, long=True)
    submit(make_client("plain", tier="pro"), pool, 200)
    Tier.objects.update(weight=1)
    shares = served(hand, pool, 60)
    assert shares["plain"] >= 30, "spreading over lanes gains nothing"


def test_pools_do_not_share_virtual_time(hand, pool):
    other_pool = make_model("other")
    one, two = make_client("one", tier="pro"), make_client("two", tier="pro")
    submit(one, other_pool, 50)
    served(hand, other_pool, 50)
    submit(one, pool, 50)
    submit(two, pool, 50)
    assert served(hand, pool, 20)["one"] == pytest.approx(10, abs=1)


@pytest.mark.parametrize("size", [1, 5])
def test_a_released_job_costs_its_client_nothing(hand, pool, size):
    unlucky, lucky = make_client("unlucky", tier="pro"), make_client("lucky", tier="pro")
    submit(unlucky, pool, 300)
    submit(lucky, pool, 300)
    for _ in range(20):
        claimed = hand.claim(pool, 2 * size)
        hand.release(*[job for job in claimed if job.client == "unlucky"])
        hand.settle(*[job for job in claimed if job.client == "lucky"], cost=0.0)
    assert served(hand, pool, 40)["unlucky"] == pytest.approx(20, abs=size)


def test_retries_are_charged_like_everything_else(hand, pool):
    failing, fine = make_client("failing", tier="pro"), make_client("fine", tier="pro")
    submit(failing, pool, 40, max_attempts=20)
    submit(fine, pool, 200)
    by_client: Counter[str] = Counter()
    for _ in range(100):
        [job] = hand.claim(pool)
        by_client[job.client] += 1
        hand.settle(job, state=State.SCHEDULED if job.client == "failing" else State.COMPLETED)
        hand.stage()
    assert by_client["failing"] == pytest.approx(50, abs=2)
