"""A claim of many takes what as many claims of one would: behind locked jobs, among aged lanes, between equals."""

from collections import Counter

import pytest
from django.db import IntegrityError, transaction

from llmjobs import places, queue
from llmjobs.models import Tier
from tests.factories import make_client
from tests.hands import submit
from tests.properties.ground import check_floors, let_pass

pytestmark = pytest.mark.django_db(transaction=True)


def test_jobs_behind_locked_heads_are_claimed_and_the_locked_ones_are_not_forgotten(hand, client, pool):
    """A host's open transaction cancels the first jobs of the only lane."""
    jobs = submit(client, pool, 40)
    with transaction.atomic():
        queue.cancel([job.id for job in jobs[:5]])
        taken = [len(hand.claim(pool, 4)) for _ in range(5)] + [len(hand.claim(pool)) for _ in range(15)]
        assert taken == [4] * 5 + [1] * 15
        assert hand.claim(pool, 4) == []
        transaction.set_rollback(True)
    assert [job.id for job in hand.claim(pool, 8)] == [job.id for job in jobs[:5]], "nobody cancelled them after all"


@pytest.mark.parametrize("size", [1, 16, 64])
def test_a_lane_that_has_aged_gets_one_job_of_it_in_a_claim_of_any_size(hand, pool, size):
    old, fresh = make_client("old", tier="pro"), make_client("fresh", tier="pro")
    submit(old, pool, 64, priority="background")
    hand.fold()
    let_pass(1_300)
    submit(fresh, pool, 64, priority="high")
    hand.sweep()
    claimed = []
    while len(claimed) < 64:
        claimed += hand.claim(pool, min(size, 64 - len(claimed)))
    assert sum(job.client == "old" for job in claimed) <= 2


@pytest.mark.parametrize("size", [1, 4, 32])
def test_many_clients_with_many_aged_lanes_are_served_in_turn(hand, pool, size):
    """More lanes stand in one level than a claim reads: where it stops reading nobody is passed over."""
    for number in range(10):
        client = make_client(f"c{number}", tier="enterprise")
        for priority in ("critical", "high", "normal", "low", "background"):
            submit(client, pool, 2, priority=priority)
    hand.fold()
    let_pass(1_500)
    for _ in range(3):
        hand.sweep()
    claimed = []
    while len(claimed) < 40:
        claimed += hand.claim(pool, min(size, 40 - len(claimed)))
    assert set(Counter(job.client for job in claimed).values()) <= {3, 4, 5}
    check_floors()


def test_of_equals_positions_claims_of_one_and_claims_of_many_agree(hand, pool):
    """New clients wake at one virtual time."""
    jobs = [submit(make_client(f"c{number}", tier="enterprise"), pool)[0] for number in range(12)]
    hand.fold()
    starts = list(places.next_starts(pool.id).places)
    ones = [hand.claim(pool)[0].id for _ in range(6)]
    assert ones + [job.id for job in hand.claim(pool, 6)] == starts
    assert len(jobs) == 12


def test_a_fault_of_one_tier_s_numbers_is_refused_where_it_is_entered():
    for fields in ({"aging_s": 1e13}, {"weight": 1e300}, {"aging_s": float("nan")}, {"weight": float("inf")}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Tier.objects.update(**fields)
