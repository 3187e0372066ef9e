"""What a provider says beside its answers, and what that does to everybody's claims: blocks, breakers, slow-downs."""

from typing import Any

import pytest

from llmjobs import queue
from llmjobs.leases import Claimed
from llmjobs.models import BucketKind, BucketTurn, Incident, Model
from llmjobs.states import State
from tests.factories import make_client, make_model, make_provider
from tests.hands import Hand, submit
from tests.properties.ground import let_pass

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hand() -> Any:
    made = Hand()
    yield made
    made.close()


@pytest.fixture
def pool() -> Model:
    made = make_model("gpt")
    submit(make_client("acme", tier="enterprise"), made, 60)
    return made


def say(hand: Hand, job: Claimed, *, wait_s: float | None = None, ago_s: float = 0.0, **signal: Any) -> None:
    row = {
        "pool_id": job.pool_id, "client_id": job.client_id, "ago_s": ago_s, "wait_s": wait_s,
        "signal": signal | {"since": job.claimed_at},
    }  # fmt: skip
    hand.run(queue.report(hand.connection, [row]))


def refuse(hand: Hand, job: Claimed, **signal: Any) -> None:
    """The call came back with that, and the job goes back to the queue."""
    say(hand, job, **signal)
    hand.settle(job, state=State.QUEUED, outcome="provider_refused")


def bucket(pool: Model, kind: BucketKind = BucketKind.POOL) -> BucketTurn:
    of_id = pool.pk if kind == BucketKind.POOL else pool.provider_id
    return BucketTurn.objects.filter(kind=kind, of_id=of_id).order_by("-turn")[0]


def account(pool: Model) -> BucketTurn:
    return bucket(pool, BucketKind.ACCOUNT)


def open_quota_breaker(hand: Hand, pool: Model) -> None:
    [job] = hand.claim(pool)
    refuse(hand, job, quota=1, words="You exceeded your current quota.")
    assert hand.claim(pool) == []


def test_a_rate_limit_blocks_the_pool_for_everybody_until_the_time_that_it_said(hand: Hand, pool: Model) -> None:
    [job] = hand.claim(pool)
    say(hand, job, refusals=1, wait_s=20)
    hand.settle(job, state=State.QUEUED, outcome="rejected", provider_status=429)
    claim = hand.claim_once(pool, 5)
    assert claim.jobs == []
    assert claim.opens_in_s == pytest.approx(20, abs=2)
    assert hand.ready_pools() == []
    let_pass(19)
    assert hand.claim(pool) == []
    let_pass(2)
    assert hand.ready_pools() == [pool.pk]
    assert hand.claim(pool)
    assert bucket(pool).refusals == 1
    assert bucket(pool).blocked_by is None
    assert not Incident.objects.exists()


def test_another_pool_goes_on_while_one_is_blocked(hand: Hand, pool: Model) -> None:
    other = make_model("other", provider=pool.provider)
    submit(make_client(), other, 3)
    [job] = hand.claim(pool)
    say(hand, job, refusals=1, wait_s=20)
    assert hand.claim(pool) == []
    assert len(hand.claim(other, 3)) == 3


def test_a_pool_that_was_blocked_opens_without_a_burst(hand: Hand) -> None:
    pool = make_model(rpm=600)
    submit(make_client(tier="enterprise"), pool, 60)
    [job] = hand.claim(pool)
    say(hand, job, refusals=1, wait_s=20)
    claim = hand.claim_once(pool, 30)
    let_pass((claim.opens_in_s or 0) - 0.05)
    while not (claimed := hand.claim(pool, 30)):
        pass
    times = [job.send_in_s for job in claimed]
    assert len([at for at in times if at < 0.05]) <= 3, "it was seen a moment late"
    assert 9 <= len(times) <= 13


def test_a_rate_limit_that_does_not_say_how_long_waits_longer_each_time(hand: Hand, pool: Model) -> None:
    waits = []
    for _ in range(4):
        [job] = hand.claim(pool)
        say(hand, job, refusals=1)
        opens_in_s = hand.claim_once(pool, 1).opens_in_s
        assert opens_in_s is not None
        waits.append(round(opens_in_s))
        let_pass(opens_in_s + 0.1)
    assert waits == [1, 2, 4, 8]
    [job] = hand.claim(pool)
    hand.settle(job, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    [job] = hand.claim(pool)
    say(hand, job, refusals=1)
    assert hand.claim_once(pool, 1).opens_in_s == pytest.approx(1, abs=0.3)


def test_calls_that_were_on_their_way_do_not_make_the_wait_longer(hand: Hand, pool: Model) -> None:
    jobs = hand.claim(pool, 8)
    for job in jobs:
        say(hand, job, refusals=1)
        hand.fold()
    assert hand.claim_once(pool, 1).opens_in_s == pytest.approx(1, abs=0.6)


def test_a_quota_that_is_used_up_stops_all_models_of_the_account_at_once(hand: Hand, pool: Model) -> None:
    other = make_model("other", provider=pool.provider)
    elsewhere = make_model("elsewhere", provider=make_provider("elsewhere"))
    for model in (other, elsewhere):
        submit(make_client(), model, 3)
    open_quota_breaker(hand, pool)
    assert hand.claim(other, 3) == []
    assert len(hand.claim(elsewhere, 3)) == 3
    assert hand.ready_pools() == []
    [incident] = Incident.objects.all()
    assert (incident.provider, incident.pool, incident.reason) == (pool.provider, None, "provider_quota")
    assert incident.words == "You exceeded your current quota."
    assert incident.closed_at is None


def test_one_call_tries_a_stopped_provider_and_each_failure_doubles_the_wait(
    hand: Hand, pool: Model, settings: Any
) -> None:
    settings.LLMJOBS_PROBE_S, settings.LLMJOBS_PROBE_MAX_S = 30, 100
    open_quota_breaker(hand, pool)
    for wait_s in (30, 60, 100, 100):
        let_pass(wait_s - 2)
        assert hand.claim(pool, 20) == []
        let_pass(3)
        [probe] = hand.claim(pool, 20)
        assert hand.claim(pool, 20) == [], "one at a time"
        refuse(hand, probe, quota=1)
        hand.fold()
    assert Incident.objects.count() == 1


def test_a_try_that_is_lost_is_followed_by_another(hand: Hand, pool: Model) -> None:
    open_quota_breaker(hand, pool)
    let_pass(31)
    assert len(hand.claim(pool, 20)) == 1
    let_pass(31)
    assert len(hand.claim(pool, 20)) == 1


def test_an_answer_closes_the_breaker_and_all_goes_on_without_a_burst(hand: Hand) -> None:
    pool = make_model(rpm=600)
    submit(make_client(tier="enterprise"), pool, 60)
    open_quota_breaker(hand, pool)
    let_pass(31)
    [probe] = hand.claim(pool, 20)
    hand.settle(probe, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    claimed = hand.claim(pool, 30)
    assert len([job for job in claimed if job.send_in_s < 0.05]) <= 2
    assert 8 <= len(claimed) <= 12
    assert account(pool).blocked_by is None
    [incident] = Incident.objects.all()
    assert incident.closed_at is not None


def test_an_answer_to_a_call_from_before_does_not_close_the_breaker(hand: Hand, pool: Model) -> None:
    old, refused = hand.claim(pool, 2)
    let_pass(1)
    refuse(hand, refused, quota=1)
    hand.fold()
    hand.settle(old, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    assert hand.claim(pool) == []
    assert account(pool).blocked_by == "provider_quota"


def test_refusals_of_calls_from_before_do_not_make_the_wait_longer(hand: Hand, pool: Model) -> None:
    jobs = hand.claim(pool, 10)
    for job in jobs:
        refuse(hand, job, quota=1)
        hand.fold()
    assert account(pool).block_s == 30


def test_a_refused_key_stops_the_provider_only_when_it_is_refused_again_and_again(hand: Hand, pool: Model) -> None:
    for _ in range(2):
        [job] = hand.claim(pool)
        refuse(hand, job, auth=1)
    [job] = hand.claim(pool)
    hand.settle(job, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    for _ in range(3):
        [job] = hand.claim(pool)
        refuse(hand, job, auth=1)
    assert hand.claim(pool) == []
    assert account(pool).blocked_by == "provider_auth"


def test_a_model_that_is_forbidden_stops_alone(hand: Hand, pool: Model) -> None:
    other = make_model("other", provider=pool.provider)
    submit(make_client(), other, 3)
    for _ in range(3):
        [job] = hand.claim(pool)
        refuse(hand, job, forbidden=1)
    assert hand.claim(pool) == []
    assert len(hand.claim(other, 3)) == 3
    [incident] = Incident.objects.all()
    assert (incident.provider, incident.pool) == (pool.provider, pool)


def test_a_provider_that_is_down_is_left_alone_and_tried_soon(hand: Hand, pool: Model) -> None:
    for job in hand.claim(pool, 9):
        say(hand, job, down=1)
    hand.fold()
    [job] = hand.claim(pool)
    say(hand, job, down=1)
    claim = hand.claim_once(pool, 1)
    assert claim.jobs == []
    assert claim.opens_in_s == pytest.approx(5, abs=1)
    assert account(pool).blocked_by == "provider_down"


def test_failures_with_answers_between_stop_nothing(hand: Hand, pool: Model) -> None:
    for _ in range(15):
        failing, answered = hand.claim(pool, 2)
        say(hand, failing, down=1)
        hand.settle(answered, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    hand.fold()
    assert account(pool).blocked_by is None


def test_slow_down_halves_the_rate_once_for_many_calls_and_it_comes_back(hand: Hand) -> None:
    pool = make_model(rpm=600, max_running=None)
    submit(make_client(tier="enterprise"), pool, 400)
    jobs = hand.claim(pool, 5)
    for job in jobs:
        say(hand, job, slow_downs=1)
    hand.fold()
    assert bucket(pool).rate_factor == 0.5
    let_pass(2)
    hand.claim(pool, 30)
    let_pass(5)
    assert 4 <= len(hand.claim(pool, 30)) <= 20
    for _ in range(3):
        let_pass(60)
    hand.claim(pool, 100)
    let_pass(1)
    assert 8 <= len(hand.claim(pool, 30)) <= 14


def test_headers_that_tell_of_a_lower_limit_are_kept_to_by_all(hand: Hand) -> None:
    pool = make_model(rpm=6_000)
    submit(make_client(tier="enterprise"), pool, 300)
    [job] = hand.claim(pool)
    assert job.rpm == 6_000
    say(hand, job, requests_limit=600)
    hand.claim(pool, 100)
    let_pass(30)
    hand.claim(pool, 100)
    let_pass(1)
    claimed = hand.claim(pool, 100)
    assert 8 <= len(claimed) <= 20
    assert claimed[0].rpm == 600
    let_pass(700)
    [job, *_] = hand.claim(pool, 1)
    assert job.rpm == 6_000, "it has not been told for ten minutes"


def test_what_the_provider_says_is_left_bounds_what_is_sent_at_once(hand: Hand) -> None:
    pool = make_model(rpm=6_000)
    submit(make_client(tier="enterprise"), pool, 300)
    [job] = hand.claim(pool)
    say(hand, job, requests_limit=6_000, requests_left=0)
    at_once = [claimed for claimed in hand.claim(pool, 100) if claimed.send_in_s < 0.009]
    assert len(at_once) <= 30, "of the 61 that it holds"


def test_lies_are_counted_and_change_nothing(hand: Hand, pool: Model) -> None:
    [job] = hand.claim(pool)
    before = bucket(pool)
    say(hand, job, lies=2)
    hand.fold()
    after = bucket(pool)
    assert after.lies == 2
    assert (after.requests_at, after.tokens_at, after.blocked_by, after.requests_limit) == (
        before.requests_at, before.tokens_at, None, None,
    )  # fmt: skip


def test_a_blocked_pool_burns_no_attempts(hand: Hand, pool: Model) -> None:
    open_quota_breaker(hand, pool)
    attempts = sum(job.attempt for job in pool.jobs.all())
    for _ in range(20):
        assert hand.claim(pool, 20) == []
        assert hand.ready_pools() == []
        let_pass(1)
    assert sum(job.attempt for job in pool.jobs.all()) == attempts


def test_an_operator_can_have_it_tried_at_once(hand: Hand, pool: Model) -> None:
    open_quota_breaker(hand, pool)
    queue.unblock([pool.pk])
    [probe] = hand.claim(pool, 20)
    hand.settle(probe, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    assert len(hand.claim(pool, 20)) == 20


def test_an_operator_can_lift_a_rate_limit(hand: Hand, pool: Model) -> None:
    [job] = hand.claim(pool)
    say(hand, job, refusals=1, wait_s=3_600)
    assert hand.claim(pool, 5) == []
    queue.unblock([pool.pk])
    assert len(hand.claim(pool, 5)) == 5


def test_a_few_failures_among_many_answers_open_nothing(hand: Hand) -> None:
    pool = make_model()
    submit(make_client(tier="enterprise"), pool, 200)
    jobs = hand.claim(pool, 200)
    hand.settle(*jobs[:190], input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    for job in jobs[190:]:
        say(hand, job, down=1)
    hand.fold()
    assert account(pool).blocked_by is None


def test_a_breaker_that_closes_leaves_other_incidents_of_its_provider_open(hand: Hand, pool: Model) -> None:
    open_quota_breaker(hand, pool)
    other = Incident.objects.create(kind="blocked", level="warning", provider=pool.provider)
    let_pass(31)
    [probe] = hand.claim(pool, 20)
    hand.settle(probe, input_tokens=1, output_tokens=1, cost=2.0, sent_ago_s=1.0)
    hand.claim(pool, 1)
    assert list(Incident.objects.filter(closed_at=None)) == [other]
    assert Incident.objects.get(kind="breaker").closed_at is not None
