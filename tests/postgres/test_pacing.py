"""What a claim reserves of the limits, and when it lets a call be sent: the SQL beside `ratelimits.py`."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection

from llmjobs import ratelimits
from llmjobs.conf import conf
from llmjobs.leases import Claimed
from llmjobs.models import BucketKind, BucketTurn, Client, FlowTurn, Model
from llmjobs.states import State
from tests.factories import make_client, make_model, make_provider
from tests.hands import Hand, settlement, submit
from tests.properties.ground import let_pass

pytestmark = pytest.mark.django_db(transaction=True)
TIE = 1e-5  # Unix seconds as a float, added up


@pytest.fixture
def hand() -> Any:
    made = Hand()
    yield made
    made.close()


def bucket(pool: Model, kind: BucketKind = BucketKind.POOL) -> BucketTurn:
    of_id = pool.pk if kind == BucketKind.POOL else pool.provider_id
    return BucketTurn.objects.filter(kind=kind, of_id=of_id).order_by("-turn")[0]


def client_bucket(client: Client) -> BucketTurn:
    return BucketTurn.objects.filter(kind=BucketKind.CLIENT, of_id=client.pk).order_by("-turn")[0]


def asked(max_tokens: int, content: str = "Say hello.") -> dict[str, Any]:
    return {"max_tokens": max_tokens, "messages": [{"role": "user", "content": content}]}


def drain(hand: Hand, pool: Model, seconds: float, *, step_s: float = 0.5) -> list[tuple[float, Claimed]]:
    """Claims each `step_s`, as a worker with slots enough; each call with its time, on a clock that time passes on."""
    calls, passed_s = [], 0.0
    while passed_s < seconds:
        calls += [(passed_s + job.claimed_at + job.send_in_s, job) for job in hand.claim(pool, 100)]
        let_pass(step_s)
        passed_s += step_s
    return calls


def most_in_a_window(calls: list[tuple[float, float]], window_s: float) -> float:
    """Of (time, amount), in order."""
    most, sum_, first = 0.0, 0.0, 0
    for at, amount in calls:
        sum_ += amount
        while calls[first][0] <= at - window_s:
            sum_ -= calls[first][1]
            first += 1
        most = max(most, sum_)
    return most


def test_requests_go_out_evenly_and_use_nearly_all_of_the_limit(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise", max_queued=10_000), make_model(rpm=600)
    submit(client, pool, 1_200)
    calls = [(at, 1.0) for at, _ in drain(hand, pool, 100)]
    assert most_in_a_window(calls, 60) <= 600
    assert most_in_a_window(calls, 60) >= 0.985 * 600
    assert all(later - earlier > 0.09 for (earlier, _), (later, _) in pairwise(calls[10:]))


def test_where_seconds_are_counted_no_second_has_more_than_its_share(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise", max_queued=10_000), make_model(rpm=600, window="second")
    submit(client, pool, 400)
    calls = [(at, 1.0) for at, _ in drain(hand, pool, 30)]
    assert most_in_a_window(calls, 1.055) <= 10  # a call may be 60 ms late
    assert len(calls) >= 0.9 * 10 * 30


def test_a_claim_gives_out_the_times_that_the_arithmetic_gives(hand: Hand) -> None:
    provider = make_provider(rpm=240, tpm=40_000)
    client, pool = make_client(), make_model(provider=provider, rpm=300, tpm=30_000)
    for length in (400, 4_000, 40, 12_000, 800):
        submit(client, pool, body=asked(10, "x" * length))
    for _ in range(12):
        buckets = {kind: bucket(pool, kind) for kind in (BucketKind.POOL, BucketKind.ACCOUNT)}
        claim = hand.claim_once(pool, 16)
        state = []
        for kind, rpm, tpm in ((BucketKind.POOL, 300, 30_000), (BucketKind.ACCOUNT, 240, 40_000)):
            before = buckets[kind]
            requests = ratelimits.requests_bucket(rpm, 60, 0.25)
            requests = as_it_stands(requests, before.requests_at, before.requests_rate, claim.clock)
            largest = before.largest * 0.5 ** ((claim.clock - before.moved_at) / 300)
            margin = ratelimits.margin(conf.portfolio_z, before.error_var, before.running)
            tokens = ratelimits.tokens_bucket(tpm, largest, margin, 0.9, mean=before.mean_tokens)
            tokens = as_it_stands(tokens, before.tokens_at, before.tokens_rate, claim.clock)
            state += [requests, tokens]
        for job in claim.jobs:
            reserved = hand_reserved(job)
            at, after = ratelimits.together(state, [1, reserved, 1, reserved], claim.clock)
            assert job.claimed_at + job.send_in_s == pytest.approx(at, abs=TIE)
            assert job.send_in_s <= conf.send_ahead_s
            allowed_s = min(state[0].allowed_s(at), state[2].allowed_s(at))
            assert (job.slack_s, job.late_max_s) == (
                pytest.approx(allowed_s, abs=TIE), pytest.approx(allowed_s + 0.25, abs=TIE)
            )  # fmt: skip
            state = after
        if claim.jobs:
            largest = max(hand_reserved(job) for job in claim.jobs)
            state[1] = state[1].grown(max(state[1].burst, min(largest, 3_000)))
            state[3] = state[3].grown(max(state[3].burst, min(largest, 4_000)))
            turns = [bucket(pool, BucketKind.POOL), bucket(pool, BucketKind.ACCOUNT)]
            told = [value for turn in turns for value in (turn.requests_at, turn.tokens_at)]
            assert told == [pytest.approx(one.at, abs=TIE) for one in state]
        let_pass(2)


def as_it_stands(bucket: ratelimits.Bucket, at: float, rate: float | None, now: float) -> ratelimits.Bucket:
    """What is in it stays in it when it drains at another rate."""
    before = replace(bucket, at=at, rate_per_s=rate or bucket.rate_per_s)
    return before.draining_at(bucket.rate_per_s, now)


def hand_reserved(job: Claimed) -> float:
    with connection.cursor() as cursor:
        cursor.execute("select reserved from llmjobs_attempt where job_id = %s and number = %s", [job.id, job.attempt])
        return float(cursor.fetchone()[0])


def test_all_is_reserved_together_or_nothing(hand: Hand) -> None:
    provider = make_provider(tpm=1_000)
    client, pool = make_client(), make_model(provider=provider, rpm=600)
    submit(client, pool, 3, body=asked(900))
    [first] = hand.claim(pool, 3)
    assert first.send_in_s == 0
    before = bucket(pool).requests_at
    claim = hand.claim_once(pool, 3)
    assert claim.jobs == []
    assert claim.opens_in_s is not None
    assert bucket(pool).requests_at == before


def test_models_of_one_account_share_its_limits(hand: Hand) -> None:
    provider = make_provider(rpm=60)
    client = make_client()
    pools = [make_model(provider=provider) for _ in range(3)]
    for pool in pools:
        submit(client, pool, 20)
    calls = []
    for passed_s in range(20):
        for pool in pools:
            calls += [passed_s + job.claimed_at + job.send_in_s for job in hand.claim(pool, 20)]
        let_pass(1)
    assert len(calls) >= 18
    assert all(later - earlier > 0.9 for earlier, later in pairwise(sorted(calls)))


def test_an_account_bounds_the_calls_in_flight_of_all_its_models(hand: Hand) -> None:
    provider = make_provider(max_running=3)
    client = make_client()
    one, other = make_model(provider=provider), make_model(provider=provider)
    submit(client, one, 5)
    submit(client, other, 5)
    running = hand.claim(one, 2) + hand.claim(other, 5)
    assert len(running) == 3
    assert hand.claim(one, 5) == []
    hand.settle(running[0])
    assert len(hand.claim(one, 5)) == 1


def test_a_job_that_fits_no_window_at_all_goes_once_all_is_free(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise"), make_model(tpm=1_000)
    submit(client, pool, body=asked(50_000), priority="high")
    Model.objects.filter(pk=pool.pk).update(token_policy="max_tokens")
    submit(client, pool, 2)
    [huge] = hand.claim(pool, 5)
    assert hand_reserved(huge) == 1_000
    let_pass(90)
    assert hand.claim(pool, 5), "what came after it"


def test_a_large_job_is_not_starved_by_small_ones_that_still_fit(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise", max_queued=5_000), make_model(tpm=60_000)
    submit(client, pool, 20, body=asked(100))
    drain(hand, pool, 3)
    [large] = submit(client, pool, body=asked(100, "x" * 80_000))
    for _ in range(60):
        submit(client, pool, 20, body=asked(100))
        drain(hand, pool, 1)
        large.refresh_from_db()
        if large.state == State.RUNNING:
            return
    pytest.fail("20,000 of 60,000 tokens a minute found no room in a minute")


def test_a_settle_gives_back_what_was_not_used(hand: Hand) -> None:
    client, pool = make_client(), make_model(tpm=60_000)
    submit(client, pool, body=asked(5_000))
    [job] = hand.claim(pool)
    before = bucket(pool)
    hand.settle(job, input_tokens=10, output_tokens=40, cost=50.0, sent_ago_s=2.0)
    hand.fold()
    assert bucket(pool).tokens_due == pytest.approx(50 - hand_reserved(job))
    submit(client, pool, body=asked(1))
    hand.claim(pool)
    assert bucket(pool).tokens_at < before.tokens_at
    assert bucket(pool).tokens == pytest.approx(50 + hand_reserved(hand_last(client)))


def hand_last(client: Client) -> Claimed:
    with connection.cursor() as cursor:
        cursor.execute(
            "select job_id, number from llmjobs_attempt where client_id = %s order by id desc limit 1", [client.pk]
        )
        job_id, number = cursor.fetchone()
    return type("Lease", (), {"id": job_id, "attempt": number})()


@pytest.mark.parametrize(
    ("details", "policy", "given_back"),
    [
        ({"sent_ago_s": None}, "portfolio", "all"),
        ({"sent_ago_s": None}, "max_tokens", "all"),
        ({"sent_ago_s": 1.0, "input_tokens": 10, "output_tokens": 10, "cost": 20.0}, "portfolio", "unused"),
        ({"sent_ago_s": 1.0, "input_tokens": 10, "output_tokens": 10, "cost": 20.0}, "max_tokens", "none"),
        ({"sent_ago_s": 61.0, "input_tokens": 10, "output_tokens": 10, "cost": 20.0}, "portfolio", "none"),
        ({"sent_ago_s": 1.0}, "portfolio", "none"),
        (
            {"sent_ago_s": 1.0, "outcome": "rejected", "provider_status": 429, "state": State.QUEUED},
            "max_tokens",
            "all",
        ),
    ],
    ids=["unsent", "unsent, all", "used", "used, all", "long ago", "nobody knows", "refused"],
)
def test_what_is_given_back(hand: Hand, details: dict[str, Any], policy: str, given_back: str) -> None:
    client, pool = make_client(), make_model(token_policy=policy)
    submit(client, pool, body=asked(500))
    [job] = hand.claim(pool)
    reserved = hand_reserved(job)
    state = details.pop("state", State.COMPLETED)
    hand.settle_all([settlement(job, state, **details)])
    hand.fold()
    expected = {"all": -reserved, "unused": 20 - reserved, "none": 0}[given_back]
    assert bucket(pool).tokens_due == pytest.approx(expected)
    details["state"] = state


def test_a_crashed_call_keeps_its_tokens_until_they_have_drained(hand: Hand, settings: Any) -> None:
    settings.LLMJOBS_LEASE_S = 0.5  # shorter than the test server has been up
    client, pool = make_client(), make_model(tpm=60_000)
    submit(client, pool, body=asked(5_000), max_attempts=1)
    [job] = hand.claim(pool)
    before = bucket(pool)
    with connection.cursor() as cursor:
        cursor.execute("update llmjobs_worker set heartbeat_at = now() - interval '1 hour'")
    if not hand.reclaim():  # Postgres started a moment ago: nobody reclaims yet
        pytest.fail("expected the lost lease to be taken back")
    hand.fold()
    after = bucket(pool)
    assert (after.tokens_at, after.tokens_due, after.running) == (before.tokens_at, 0, 0)
    assert after.tokens_at - before.moved_at == pytest.approx(hand_reserved(job) / (60_000 * 0.9 / 60), rel=0.2)


def test_what_was_learned_sets_aside_what_jobs_will_use(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise"), make_model()
    for _ in range(10):
        submit(client, pool, 10, body=asked(200))
        jobs = hand.claim(pool, 10)
        hand.settle(*jobs, input_tokens=4, output_tokens=25, cost=29.0, sent_ago_s=1.0)
    submit(client, pool, body=asked(200))
    [job] = hand.claim(pool)
    assert hand_reserved(job) == pytest.approx(29, rel=0.3)
    flow = FlowTurn.objects.get()
    assert flow.tokens_ratio < 0.2
    assert bucket(pool).mean_tokens == pytest.approx(29, rel=0.1)
    assert bucket(pool).error_var < 256**2


def test_a_policy_that_counts_all_up_front_reserves_what_the_request_allows(hand: Hand) -> None:
    client, pool = make_client(), make_model(token_policy="max_tokens")
    submit(client, pool, body=asked(2_048))
    [job] = hand.claim(pool)
    assert hand_reserved(job) >= 2_048
    assert job.est_output_tokens < 2_048


# The limits of clients.


def test_a_client_at_its_limit_waits_and_others_go_on(hand: Hand) -> None:
    limited, other, pool = make_client(rpm=6), make_client(), make_model()
    submit(limited, pool, 20)
    submit(other, pool, 20)
    claimed = hand.claim(pool, 40)
    assert sum(job.client_id == limited.pk for job in claimed) == 6
    assert sum(job.client_id == other.pk for job in claimed) == 20
    assert hand.ready_pools() == []
    let_pass(10.1)
    assert hand.ready_pools() == [pool.pk]
    assert [job.client_id for job in hand.claim(pool, 40)] == [limited.pk]


def test_a_clients_limit_holds_over_all_models(hand: Hand) -> None:
    client, pools = make_client(rpm=6), [make_model(), make_model()]
    for pool in pools:
        submit(client, pool, 10)
    assert len(hand.claim(pools[0], 4)) == 4
    assert len(hand.claim(pools[1], 10)) == 2
    assert hand.claim(pools[0], 10) == []
    let_pass(20.1)
    assert len(hand.claim(pools[0], 1)) == 1
    assert len(hand.claim(pools[1], 10)) == 1


def test_a_clients_tokens_hold_its_jobs_back_and_what_was_not_used_lets_them_go(hand: Hand) -> None:
    client, pool = make_client(tpm=1_000), make_model()
    submit(client, pool, 10, body=asked(250))
    running = hand.claim(pool, 10)
    assert 3 <= len(running) <= 4
    hand.settle(*running, input_tokens=1, output_tokens=9, cost=10.0, sent_ago_s=1.0)
    assert len(hand.claim(pool, 10)) >= 2
    let_pass(10)
    hand.fold()
    assert hand.claim(pool, 10)


def test_a_raised_limit_acts_on_what_waits_at_once(hand: Hand) -> None:
    client, pool = make_client(rpm=2), make_model()
    submit(client, pool, 10)
    assert len(hand.claim(pool, 10)) == 2
    Client.objects.filter(pk=client.pk).update(rpm=600)
    assert len(hand.claim(pool, 10)) == 8


def test_a_clients_limit_is_its_tiers_where_it_has_none(hand: Hand) -> None:
    client, pool = make_client(), make_model()
    type(client.tier).objects.filter(pk=client.tier_id).update(rpm=3)
    submit(client, pool, 10)
    assert len(hand.claim(pool, 10)) == 3


def test_any_number_of_clients_at_their_limits_hides_nobody(hand: Hand) -> None:
    pool = make_model()
    for _ in range(30):
        client = make_client(rpm=1)
        submit(client, pool, 3)
    free = make_client()
    submit(free, pool, 5)
    claimed = hand.claim(pool, 64)
    assert len(claimed) == 35
    assert sum(job.client_id == free.pk for job in claimed) == 5


def test_a_small_job_is_not_held_back_by_a_large_one_behind_it(hand: Hand) -> None:
    client, pool = make_client(tier="enterprise", tpm=20_000), make_model(rpm=60)
    submit(client, pool, 5, body=asked(10))
    submit(client, pool, body=asked(10, "x" * 79_000))
    calls = drain(hand, pool, 8)
    assert len(calls) >= 5


# What would stop a pool, or starve one.


def test_a_request_for_more_tokens_than_there_are_stops_nobody(hand: Hand) -> None:
    client, pool = make_client(), make_model(token_policy="max_tokens", tpm=10_000)
    submit(client, pool, body=asked(2_147_483_647))
    other = make_client()
    submit(other, pool, 2)
    calls = drain(hand, pool, 200, step_s=5)
    assert len(calls) == 3


def test_an_answer_with_impossible_usage_is_settled(hand: Hand) -> None:
    client, pool = make_client(), make_model()
    submit(client, pool)
    [job] = hand.claim(pool)
    assert hand.settle(job, input_tokens=2**31 - 1, output_tokens=2**31 - 1, cost=1.0, sent_ago_s=1.0)
    hand.fold()


def test_a_model_that_moves_while_it_runs_leaves_no_slot_behind(hand: Hand) -> None:
    one, other = make_provider(max_running=1), make_provider(max_running=1)
    client, moving, staying = make_client(), make_model(provider=one), make_model(provider=one)
    submit(client, moving, 3)
    submit(client, staying, 3)
    [job] = hand.claim(moving)
    Model.objects.filter(pk=moving.pk).update(provider=other)
    assert len(hand.claim(staying, 3)) == 1, "its account runs nothing any more"
    assert hand.claim(moving, 3) == []
    hand.settle(job)
    assert len(hand.claim(moving, 3)) == 1


def test_a_large_long_job_is_not_starved_by_workers_that_take_short_ones_only(hand: Hand) -> None:
    pool = make_model(tpm=6_000)
    small, large = make_client(tier="enterprise"), make_client(tier="enterprise")
    for _ in range(40):
        submit(small, pool, 5, body=asked(100))
    drain(hand, pool, 5)
    [job] = submit(large, pool, body={**asked(5_000, "x" * 16_000), "n": 4})
    assert job.size == 1
    for _ in range(200):
        hand.claim(pool, 10, short_only=True)
        hand.claim(pool, 10)
        let_pass(1)
        job.refresh_from_db()
        if job.state == State.RUNNING:
            return
    pytest.fail("it was passed for 200 seconds")


def test_a_large_job_is_not_starved_by_another_model_of_its_account(hand: Hand) -> None:
    provider = make_provider(tpm=6_000)
    busy, pool = (make_model(provider=provider, token_policy="expected") for _ in range(2))  # nobody settles here
    client = make_client(tier="enterprise", max_queued=5_000)
    submit(client, busy, 400, body=asked(20))
    for _ in range(5):
        hand.claim(busy, 10)
        let_pass(1)
    submit(client, pool, 3, body=asked(100, "x" * 18_000))
    started, passed = 0, 0
    for _ in range(300):
        passed += len(hand.claim(busy, 10))
        started += len(hand.claim(pool, 10))
        let_pass(1)
    assert started >= 2
    assert passed >= 20, "and it starves nobody either"


def test_a_clock_that_was_set_back_costs_a_minute(hand: Hand) -> None:
    client, pool = make_client(rpm=600), make_model(rpm=600, tpm=60_000)
    submit(client, pool, 100)
    hand.claim(pool, 20)
    for hours in (1, 100):
        let_pass(-hours * 3_600)
        hand.claim(pool, 5)
        hand.fold()  # the sweep of each two seconds
        let_pass(75)
        assert hand.claim(pool, 5)


def test_an_edit_of_limits_opens_a_pool_that_was_closed_by_the_old_ones(hand: Hand) -> None:
    client, pool = make_client(), make_model(rpm=1)
    submit(client, pool, 20)
    assert len(hand.claim(pool, 20)) == 1
    assert hand.ready_pools() == []
    Model.objects.filter(pk=pool.pk).update(rpm=6_000)
    assert hand.ready_pools() == [pool.pk]
    assert len(hand.claim(pool, 20)) >= 18
