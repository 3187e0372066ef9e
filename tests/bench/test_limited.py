"""What the benchmark of limits measures with: a ledger's reading, lengths, the other limiters, the plain claim."""

import asyncio
import random
import time
from collections import Counter

import pytest
from django.db import connection, transaction

from llmjobs import queue, submitting
from llmjobs.leases import Claim
from llmjobs.models import Attempt, Inbox
from tests.bench import plain_worker
from tests.bench.limited import Span, reading
from tests.bench.limiters import KINDS, AnchoredWindow, TokenBucket
from tests.bench.limits import PEERS
from tests.bench.token_limits import Lengths
from tests.factories import make_client, make_model
from tests.hands import hands, submit


def call(at: float, status: int = 200, model: str = "m", tokens: int = 30) -> dict[str, object]:
    return {"at": at, "status": status, "model": model, "input_tokens": tokens - 10, "output_tokens": 10}


def test_a_reading_counts_failed_calls_as_used_and_refused_ones_not():
    ledger = [call(100), call(105), call(106, 500), call(107, 429), call(109), call(110), call(107, model="other")]
    found = reading(ledger, "m", Span(5, 5))
    assert (found.requests, found.tokens, found.sends, found.refusals) == (3, 90, 6, 1)
    assert found.requests_used(60) == pytest.approx(3 / 5)
    assert found.tokens_used(1_080) == pytest.approx(1)
    assert found.refused_share == pytest.approx(1 / 6)


def test_a_reading_of_nothing_is_refused_and_not_told_as_zero():
    with pytest.raises(RuntimeError, match="expected calls of m"):
        reading([call(1, model="other")], "m", Span(5, 5))


def test_fitted_lengths_are_those_of_the_sample_and_never_above_the_most():
    dice = random.Random(1)
    sample = [round(dice.lognormvariate(5, 0.8)) for _ in range(20_000)]
    law = Lengths.fitted(sample, most=600)
    drawn = [law.draw(dice) for _ in range(20_000)]
    assert (law.mu, law.sigma) == (pytest.approx(5, abs=0.05), pytest.approx(0.8, abs=0.05))
    assert max(drawn) == 600 and min(drawn) >= 1
    assert sorted(drawn)[10_000] == pytest.approx(sorted(sample)[10_000], rel=0.05)


@pytest.mark.parametrize("kind", [AnchoredWindow, TokenBucket])
def test_a_limiter_lets_through_what_it_holds_at_once_and_then_makes_wait(kind):
    async def let_through() -> int:
        limiter, count = kind(20), 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await limiter.wait()
                    count += 1
        return count

    assert asyncio.run(let_through()) == 20


def test_each_peer_that_is_told_of_is_one_that_there_is():
    assert PEERS.keys() == KINDS.keys()


@pytest.mark.django_db(transaction=True)
def test_the_plain_claim_hands_out_what_ours_does_in_plain_order_and_no_claim_is_told_of_it():
    client, pool = make_client(), make_model()
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute(plain_worker.PREPARE)
        transaction.set_rollback(True)  # the index of lanes is there to be replaced
    with plain_worker.without_inbox(), hands(1) as [hand]:
        jobs = submit(client, pool, 5)
        assert hand.run(plain_worker.ready_pools(hand.connection)) == [pool.pk]
        claim: Claim = hand.run(
            plain_worker.claim(hand.connection, worker=hand.worker, pool_id=pool.pk, count=3, jitter_s=0.0)
        )
        assert [job.id for job in claim.jobs] == [job.pk for job in jobs[:3]]
        assert abs(claim.clock - time.time()) < 60
        assert set(hand.settle(*claim.jobs).values()) == {"completed"}
    assert Counter(Attempt.objects.values_list("outcome", flat=True)) == {"completed": 3}
    assert not Inbox.objects.exists()


def test_what_tells_claims_is_cut_out_of_submit_and_settle_alone():
    with plain_worker.without_inbox():
        assert "llmjobs_inbox" not in submitting.load("submit") + queue.load("settle")
        assert "llmjobs_inbox" in queue.load("cancel")
