"""Whatever is submitted, claimed, settled, given back and lost: no window admits more than its limit.

The clock is the database's; time passes by moving what is stored into the past. What is checked is what a provider
would count: requests and tokens as reserved, corrected where they were corrected, in every span between two sends.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmjobs.leases import Claimed, Settlement
from llmjobs.models import Attempt, Model, Provider
from tests.factories import make_client, make_model, make_provider
from tests.hands import Hand, hands, settlement, submit
from tests.properties.ground import empty, let_pass

pytestmark = pytest.mark.django_db(transaction=True)

EFFORT = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 30), st.sampled_from([8, 400, 4_000, 40_000])),
        st.tuples(st.just("claim"), st.integers(1, 40), st.integers(0, 1)),
        st.tuples(st.just("settle"), st.integers(1, 20), st.sampled_from([0.0, 0.5, 1.0, 1.5])),
        st.tuples(st.just("release"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("crash"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("pass"), st.sampled_from([0.01, 0.3, 1.0, 7.0, 70.0]), st.just(0)),
    ),
    min_size=25,
    max_size=60,
)


@dataclass
class Call:
    """A reservation: when the call may be sent, on a clock that time passes on."""

    sent_at: float
    pool: Model
    tokens: float
    job: Claimed


@dataclass
class Correction:
    """What was put right in a pool's and its account's tokens."""

    pool: Model
    tokens: float


Log = list[Call | Correction]  # in the order in which the buckets were told


def check(name: str, log: Log, burst: float, rate_per_s: float, *, is_of_tokens: bool) -> None:
    """Between any two sends, with all corrections between them, at most burst + rate · t; one alone may be larger."""
    for index, first in enumerate(log):
        if not isinstance(first, Call):
            continue
        total = 0.0
        for entry in log[index:]:
            if isinstance(entry, Correction):
                total += entry.tokens if is_of_tokens else 0
                continue
            total += entry.tokens if is_of_tokens else 1
            most = burst + rate_per_s * max(0.0, entry.sent_at - first.sent_at)
            assert entry is first or total <= most * (1 + 1e-6) + 1e-2, f"{name}: {total:g} where {most:g} fit"


@pytest.fixture
def hand() -> Any:
    with hands(1) as [made]:
        yield made


def test_no_sequence_of_verbs_admits_more_than_the_limits(hand: Hand) -> None:
    provider = make_provider(rpm=900, tpm=90_000)
    pools = [make_model(provider=provider, rpm=600, tpm=60_000), make_model(provider=provider, rpm=600, tpm=60_000)]
    client = make_client(tier="enterprise", max_queued=100_000)

    @EFFORT
    @given(steps=STEPS)
    def whatever_happens(steps: list[tuple[str, Any, Any]]) -> None:
        empty()
        let_pass(1_000)
        check_limits(play(hand, pools, client, steps), pools, provider)

    whatever_happens()


def play(hand: Hand, pools: list[Model], client: Any, steps: list[tuple[str, Any, Any]]) -> Log:
    log: Log = []
    running: list[Call] = []
    passed_s = 0.0
    for verb, amount, detail in steps:
        match verb:
            case "submit":
                body = {"max_tokens": 100, "messages": [{"role": "user", "content": "x" * detail}]}
                submit(client, pools[amount % 2], amount, body=body)
            case "claim":
                for job in hand.claim(pools[detail], amount):
                    reserved = Attempt.objects.get(job_id=job.id, number=job.attempt).reserved
                    running.append(Call(passed_s + job.claimed_at + job.send_in_s, pools[detail], reserved, job))
                    log.append(running[-1])
            case "settle":
                ended, running = running[:amount], running[amount:]
                hand.settle_all([used(call, round(call.tokens * detail)) for call in ended])
                log += [Correction(call.pool, round(call.tokens * detail) - call.tokens) for call in ended]
            case "release":  # it never was sent; its place in the requests is not given back
                ended, running = running[:amount], running[amount:]
                hand.release(*(call.job for call in ended))
                log += [Correction(call.pool, -call.tokens) for call in ended]
            case "crash":
                running = running[amount:]
            case "pass":
                let_pass(amount)
                passed_s += amount
    return log


def used(call: Call, tokens: int) -> Settlement:
    return settlement(call.job, sent_ago_s=0.0, input_tokens=tokens, output_tokens=0, cost=float(tokens))


def check_limits(log: Log, pools: list[Model], provider: Provider) -> None:
    """The most that a claim may use: a usual call or a hundredth of the requests at once, and the even rate."""
    for name, own, rpm, tpm in (
        *((pool.name, [entry for entry in log if entry.pool == pool], 600, 60_000) for pool in pools),
        (provider.name, log, 900, 90_000),
    ):
        check(f"requests of {name}", own, 1 + rpm // 100, (rpm - rpm // 100) / 60, is_of_tokens=False)
        check(f"tokens of {name}", own, tpm / 4, tpm / 60, is_of_tokens=True)
