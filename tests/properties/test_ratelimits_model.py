"""The laws of the limits: no sequence of sends, corrections and crashes admits more than a bucket allows.

In fractions, so that a law holds to the last digit; at a provider's count in floats of the Unix clock, as in Postgres.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmjobs.providers.simulator.limits import WINDOWS, requests_meter, tokens_meter
from llmjobs.ratelimits import Bucket, requests_bucket, together, tokens_bucket

EFFORT = settings(max_examples=150, deadline=None, derandomize=True)
UNIX_S = 1_800_000_000.0


def fractions(least: float, most: float, *, parts: int = 8) -> st.SearchStrategy[Fraction]:
    return st.integers(int(least * parts), int(most * parts)).map(lambda n: Fraction(n, parts))


# What may happen, with how much, and how much later than what was before it.
VERBS = ("reserve", "reserve", "reserve", "settle", "refund", "crash", "wait")
EVENTS = st.lists(st.tuples(st.sampled_from(VERBS), fractions(0, 30), fractions(0, 8)), min_size=2, max_size=40)
SIZES = st.lists(st.tuples(fractions(1, 20), fractions(0.125, 5)), min_size=1, max_size=4)  # (burst, rate) of buckets


@dataclass
class Ledger:
    """What one bucket let through, from outside of it: sends with their times, corrections without."""

    bucket: Bucket
    noted: list[tuple[Fraction | None, Fraction]] = field(default_factory=list)

    def overdrafts(self) -> Iterator[Fraction]:
        """Between each two sends: by how much more was reserved than b + r * t. Never above 0."""
        for first, (begun_at, _) in enumerate(self.noted):
            if begun_at is None:
                continue
            total = Fraction(0)
            for nth, (sent_at, amount) in enumerate(self.noted[first:]):
                total += amount
                if nth and sent_at is not None:
                    yield total - self.bucket.burst - self.bucket.rate_per_s * (sent_at - begun_at)


def happened(
    sizes: Sequence[tuple[Fraction, Fraction]], events: Sequence[tuple[str, Fraction, Fraction]]
) -> list[Ledger]:
    """Each call reserves its amount in the first bucket, half of it in the second, and so on."""
    ledgers = [Ledger(Bucket(burst, rate, Fraction(0))) for burst, rate in sizes]
    running: list[list[Fraction]] = []
    now = Fraction(0)
    for verb, amount, later_s in events:
        if verb == "wait":
            now += later_s
        elif verb == "reserve":
            amounts = [amount / (nth + 1) for nth in range(len(ledgers))]
            sent_at, after = together([ledger.bucket for ledger in ledgers], amounts, now)
            assert sent_at >= now
            for ledger, bucket, part in zip(ledgers, after, amounts, strict=True):
                ledger.bucket = bucket
                ledger.noted.append((sent_at, part))
            running.append(amounts)
        elif running:
            amounts = running.pop(0)
            for ledger, reserved in zip(ledgers, amounts, strict=True):
                used = {"settle": amount, "refund": Fraction(0), "crash": reserved}[verb]
                if verb != "crash":  # of a crash nobody says anything
                    ledger.bucket = ledger.bucket.correct(used - reserved)
                    ledger.noted.append((None, used - reserved))
    return ledgers


@EFFORT
@given(SIZES, EVENTS)
def test_no_sequence_whatever_admits_more_than_burst_and_rate_allow(sizes, events):
    for ledger in happened(sizes, events):
        assert max(ledger.overdrafts(), default=Fraction(0)) <= 0


@EFFORT
@given(SIZES, EVENTS)
def test_whatever_happened_a_bucket_has_all_its_room_again_in_the_end(sizes, events):
    """Nothing is lost for good: as soon as what was noted has drained, and no sooner than it could."""
    for ledger in happened(sizes, events):
        begun_at = min((at for at, _ in ledger.noted if at is not None), default=Fraction(0))
        overrun = sum((amount for _, amount in ledger.noted if amount > 0), Fraction(0))
        last_at = max((at for at, _ in ledger.noted if at is not None), default=Fraction(0))
        assert ledger.bucket.room(last_at + overrun / ledger.bucket.rate_per_s) == ledger.bucket.burst
        assert ledger.bucket.room(begun_at) <= ledger.bucket.burst


@EFFORT
@given(fractions(1, 20), fractions(0.125, 5), fractions(0.125, 30), fractions(0, 10), fractions(0, 60))
def test_a_call_waits_no_longer_than_it_must(burst, rate, amount, level, now):
    """A moment earlier it would have overdrawn the bucket."""
    bucket = Bucket(burst, rate, now + level)
    sent_at = bucket.earliest(amount, now)
    assert sent_at == now or amount == burst - rate * (bucket.at - sent_at)


@EFFORT
@given(SIZES, EVENTS, fractions(0, 60), st.integers(1, 30))
def test_a_blocked_bucket_opens_without_a_burst_whatever_was_before(sizes, events, until, count):
    for ledger in happened(sizes, events):
        bucket, sends = ledger.bucket.blocked(until, first=1), []
        for _ in range(count):
            sent_at = bucket.earliest(1, Fraction(0))
            bucket = bucket.reserve(1, sent_at)
            sends.append(sent_at)
        for nth, sent_at in enumerate(sends):
            assert sent_at >= until and nth <= bucket.rate_per_s * (sent_at - until)


@EFFORT
@given(SIZES, EVENTS, fractions(0, 20), fractions(0, 60))
def test_what_a_provider_tells_never_adds_room_and_is_never_exceeded(sizes, events, left, told_at):
    for ledger in happened(sizes, events):
        before, after = ledger.bucket, ledger.bucket.told(left, told_at)
        assert after.room(told_at) <= before.room(told_at)
        assert after.room(told_at) <= left


@EFFORT
@given(
    limit=st.integers(1, 150) | st.sampled_from([600, 1_200]),
    window_s=st.sampled_from([60, 1]),
    jitter_share=fractions(0, 0.125, parts=64),
    pauses=st.lists(fractions(0, 1), min_size=1, max_size=5),
    lateness=st.lists(fractions(0, 1), min_size=1, max_size=7),
)
def test_no_window_of_a_provider_sees_more_requests_than_its_limit(limit, window_s, jitter_share, pauses, lateness):
    """Whatever each call is late by, up to the jitter and what its slot allows, and however a burst was saved up."""
    jitter_s = jitter_share * window_s
    floats = requests_bucket(limit, window_s, jitter_s)
    per_window = limit * window_s / 60
    # The same numbers as fractions.
    whole = math.floor(per_window) if per_window >= 1 else Fraction(limit * window_s, 60)
    rate = Fraction(whole - (floats.burst - 1)) / (window_s + jitter_s)
    assert float(rate) == pytest.approx(floats.rate_per_s)
    slack_s = Fraction(floats.burst - 1) / 2 / rate
    assert float(slack_s) == pytest.approx(floats.slack_s)
    bucket, arrivals = Bucket(floats.burst, rate, Fraction(0), slack_s), []
    late, pause = itertools.cycle(lateness), itertools.cycle(pauses)
    for nth in range(2 * math.ceil(whole) + 10):
        now = bucket.at + next(pause) * window_s / 4 if nth % 13 == 0 else Fraction(0)
        sent_at = bucket.earliest(1, now)
        arrivals.append(sent_at + next(late) * (jitter_s + bucket.allowed_s(sent_at)))
        bucket = bucket.reserve(1, sent_at)
    arrivals.sort()
    allowed = max(1, math.floor(per_window))
    for first, second in zip(arrivals, arrivals[allowed:], strict=False):
        assert second - first >= window_s, f"{allowed + 1} requests within a window that allows {allowed}"


@EFFORT
@given(
    limit=st.integers(1_000, 100_000),
    sizes=st.lists(fractions(0.001, 0.3, parts=1_000), min_size=1, max_size=9),
    margin_share=fractions(0, 0.5, parts=16),
    jitter_s=fractions(0, 4),
    lateness=st.lists(fractions(0, 1), min_size=1, max_size=7),
)
def test_no_minute_of_a_provider_sees_more_tokens_than_the_limit_less_the_margin(
    limit, sizes, margin_share, jitter_s, lateness
):
    floats = tokens_bucket(limit, float(max(sizes)) * limit, float(margin_share) * limit, float(jitter_s))
    burst = Fraction(floats.burst)
    bucket = Bucket(burst, (limit - burst - margin_share * limit) / (60 + jitter_s), Fraction(0))
    assert float(bucket.rate_per_s) == pytest.approx(floats.rate_per_s)
    arrivals: list[tuple[Fraction, Fraction]] = []
    for share, late in itertools.islice(zip(itertools.cycle(sizes), itertools.cycle(lateness)), 60):
        amount = share * limit
        sent_at = bucket.earliest(amount, Fraction(0))
        bucket = bucket.reserve(amount, sent_at)
        arrivals.append((sent_at + late * jitter_s, amount))
    arrivals.sort()
    for nth, (begun_at, _) in enumerate(arrivals):
        seen = [amount for at, amount in arrivals[nth:] if at < begun_at + 60]
        assert len(seen) == 1 or sum(seen) <= (1 - margin_share) * limit


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("limit", [600, 500, 60, 6_000])
def test_a_provider_refuses_nobody_and_is_used_nearly_whole(window, limit):
    """Saturated for five minutes by the Unix clock, late by up to the jitter, at each way to count."""
    meter, jitter_s = requests_meter(window, limit), 0.06 if window == "second" else 0.25
    bucket = requests_bucket(limit, 1 if window == "second" else 60, jitter_s, at=UNIX_S)
    late = itertools.cycle([0.0, 0.7, 0.3, 0.99, 0.1, 0.5])
    taken, sent_at, arrivals = 0, UNIX_S, []
    while sent_at < UNIX_S + 300:
        sent_at = bucket.earliest(1, UNIX_S)
        bucket = bucket.reserve(1, sent_at)
        arrivals.append(sent_at + next(late) * jitter_s)
    for at in sorted(arrivals):
        assert meter.wait_s(at, 1) == 0, f"the {taken}th, {at - UNIX_S:.3f} s after the first"
        meter.charge(at, 1)
        taken += 1
    whole = math.floor(limit / 60) * 60 if window == "second" else limit
    assert taken / 5 >= whole * (0.93 if window == "second" else 0.98)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_provider_refuses_no_tokens_that_were_known_before(window):
    limit, jitter_s = 30_000, 0.25
    meter = tokens_meter(window, limit)
    bucket = tokens_bucket(limit, 1_500, 0, jitter_s, at=UNIX_S)
    amounts = itertools.cycle([40, 700, 1_500, 90, 1_200, 10])
    taken, sent_at = 0, UNIX_S
    while sent_at < UNIX_S + 300:
        amount = next(amounts)
        sent_at = bucket.earliest(amount, UNIX_S)
        bucket = bucket.reserve(amount, sent_at)
        assert meter.wait_s(sent_at, amount) == 0
        meter.charge(sent_at, amount)
        taken += amount
    assert taken / 5 >= 0.94 * limit
