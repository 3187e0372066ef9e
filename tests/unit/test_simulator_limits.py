"""The simulator's limits: each window admits what it says and not a call more, and tells how long to wait."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.simulator.limits import (
    WINDOWS,
    Account,
    FixedWindow,
    SlidingLog,
    TokenBucket,
    Window,
    duration,
    requests_meter,
    tokens_meter,
)

NOON = 1_800_000_000.0  # a whole minute of the Unix clock
GAPS = st.lists(st.floats(0, 3).map(lambda gap: gap**3), min_size=1, max_size=120)


def admitted_at(window: Window, rpm: int, gaps: list[float]) -> list[float]:
    """When a client that calls after these gaps gets in."""
    account, now, admitted = Account(window, rpm=rpm, tpm=None), NOON, []
    for gap in gaps:
        now += gap
        if account.admit(now, 0) is None:
            admitted.append(now)
    return admitted


@given(rpm=st.integers(1, 40), gaps=GAPS)
def test_a_sliding_log_admits_its_limit_in_any_minute(rpm: int, gaps: list[float]) -> None:
    admitted = admitted_at("sliding", rpm, gaps)
    for start in admitted:
        assert sum(start <= at < start + 60 for at in admitted) <= rpm


def test_a_sliding_log_remembers_for_a_minute_and_no_longer() -> None:
    account = Account("sliding", rpm=None, tpm=10)
    assert account.admit(NOON, 10) is None
    assert account.admit(NOON + 59.999, 1) is not None
    assert account.admit(NOON + 60, 10) is None


@given(rpm=st.integers(1, 40), gaps=GAPS)
def test_a_fixed_window_admits_its_limit_in_a_calendar_minute(rpm: int, gaps: list[float]) -> None:
    assert max(Counter(at // 60 for at in admitted_at("fixed", rpm, gaps)).values(), default=0) <= rpm


@given(rpm=st.integers(1, 40), gaps=GAPS)
def test_a_bucket_admits_its_capacity_and_its_refill(rpm: int, gaps: list[float]) -> None:
    admitted = admitted_at("bucket", rpm, gaps)
    for nth, start in enumerate(admitted):
        for count, end in enumerate(admitted[nth:], 1):
            assert count <= rpm + (end - start) * rpm / 60 + 1e-6


@given(rpm=st.integers(1, 400), gaps=GAPS)
def test_by_the_second_a_sixtieth_of_the_limit_is_admitted_rounded_up(rpm: int, gaps: list[float]) -> None:
    per_second = Counter(int(at) for at in admitted_at("second", rpm, gaps))
    assert max(per_second.values(), default=0) <= math.ceil(rpm / 60)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_full_limit_is_all_admitted(window: Window) -> None:
    """The other side of the bounds above: a window that refuses everything must not pass for an exact one."""
    account = Account(window, rpm=600, tpm=None)
    at_once = 10 if window == "second" else 600
    refusals = [account.admit(NOON, 0) for _ in range(at_once + 1)]
    assert refusals[:at_once] == [None] * at_once
    assert refusals[at_once] is not None


@given(
    window=st.sampled_from(WINDOWS),
    limit=st.integers(10, 500),
    charges=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 10)), max_size=60),
    amount=st.integers(1, 10),
)
def test_the_wait_that_is_told_is_enough_and_no_longer(
    window: Window, limit: int, charges: list[tuple[float, int]], amount: int
) -> None:
    meter, now = tokens_meter(window, limit), NOON
    for gap, charge in charges:
        now += gap
        if meter.wait_s(now, charge) == 0:
            meter.charge(now, charge)
    wait_s = meter.wait_s(now, amount)
    if wait_s > 0.01:
        assert meter.wait_s(now + wait_s - 0.001, amount) > 0
    assert meter.wait_s(now + wait_s + 0.001, amount) == 0


@pytest.mark.parametrize("window", ["sliding", "bucket"])
def test_hammering_a_full_limit_keeps_it_full(window: Window) -> None:
    account = Account(window, rpm=6, tpm=None)
    for _ in range(6):
        assert account.admit(NOON, 0) is None
    assert all(account.admit(NOON + second, 0) for second in range(1, 200))
    assert account.admit(NOON + 199 + 60, 0) is None


def test_a_refused_call_costs_a_request_but_no_tokens() -> None:
    account = Account("sliding", rpm=10, tpm=100)
    assert account.admit(NOON, 90) is None
    refusal = account.admit(NOON, 20)
    assert refusal is not None
    assert (refusal.dimension, refusal.limit, refusal.used, refusal.requested) == ("tokens", 100, 90, 20)
    headers = account.headers(NOON)
    assert "x-ratelimit-remaining-requests: 8\r\n" in headers
    assert "x-ratelimit-remaining-tokens: 10\r\n" in headers


def test_without_a_free_request_no_tokens_are_taken() -> None:
    account = Account("sliding", rpm=1, tpm=100)
    assert account.admit(NOON, 10) is None
    refusal = account.admit(NOON + 1, 10)
    assert refusal is not None
    assert (refusal.dimension, refusal.wait_s) == ("requests", 59)
    assert "x-ratelimit-remaining-tokens: 90\r\n" in account.headers(NOON + 1)


def test_the_dimension_that_lasts_longer_is_told() -> None:
    account = Account("sliding", rpm=1, tpm=100)
    assert account.admit(NOON, 100) is None
    assert account.admit(NOON + 30, 0) is not None  # the refused call is the last request now, the tokens are older
    refusal = account.admit(NOON + 40, 50)
    assert refusal is not None
    assert (refusal.dimension, refusal.wait_s) == ("requests", 50)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_call_larger_than_the_limit_never_fits(window: Window) -> None:
    refusal = Account(window, rpm=None, tpm=100).admit(NOON, 101)
    assert refusal is not None
    assert refusal.wait_s == math.inf


def test_a_dimension_without_a_limit_has_no_headers() -> None:
    assert Account("sliding", rpm=None, tpm=None).headers(NOON) == ""
    assert "tokens" not in Account("sliding", rpm=5, tpm=None).headers(NOON)


def test_by_the_second_tokens_are_counted_by_the_minute() -> None:
    """A call of 1,000 tokens must fit into 30,000 a minute, though a second's share is 500."""
    account = Account("second", rpm=600, tpm=30_000)
    assert account.admit(NOON, 1_000) is None


def test_the_reset_is_when_the_limit_is_whole_again() -> None:
    sliding, fixed, bucket = SlidingLog(60), FixedWindow(60), TokenBucket(60)
    for meter in (sliding, fixed, bucket):
        assert meter.reset_s(NOON) == 0
        meter.charge(NOON, 1)
        meter.charge(NOON + 15, 1)
    assert sliding.reset_s(NOON + 20) == 55
    assert fixed.reset_s(NOON + 20) == 40
    assert bucket.reset_s(NOON + 15) == 1
    assert requests_meter("second", 60).reset_s(NOON) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (60, "1m0s"),
        (86.4, "1m26.4s"),
        (360, "6m0s"),
        (3602, "1h0m2s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
