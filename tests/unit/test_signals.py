"""What is told to all workers: of how a call ended, and of what a provider's headers say."""

import json as plain_json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.outcomes import Error, Kind, Outcome, Told, classify
from llmjobs.signals import COUNTS, Signal, from_headers, merged, signal_of

AT = 1_000.0
ANY_COUNT = st.integers(0, 5)
ANY_SIGNAL = st.builds(
    Signal,
    at=st.floats(0, 1_000),
    **dict.fromkeys(COUNTS, ANY_COUNT),
    wait_s=st.none() | st.floats(0, 100),
    requests_left=st.none() | ANY_COUNT,
    tokens_limit=st.none() | ANY_COUNT,
    words=st.sampled_from(["", "a", "b"]),
)


def refused(status, code, **fields):
    return Outcome(classify(status, code), Error(code or f"http_{status}", "words", status), **fields)


def told_of(outcome):
    """The counts that are not zero."""
    signal = signal_of(outcome, at=AT)
    return None if signal is None else {name: count for name in COUNTS if (count := getattr(signal, name))}


@pytest.mark.parametrize(
    ("status", "code", "counts"),
    [
        (429, "rate_limit_exceeded", {"refusals": 1}),
        (429, "rate_limit_error", {"refusals": 1}),
        (429, None, {"refusals": 1}),
        (None, "rate_limit_exceeded", {"refusals": 1}),
        (429, "slow_down", {"refusals": 1, "slow_downs": 1}),
        (503, "slow_down", {"slow_downs": 1}),
        (503, None, {"down": 1}),
        (503, "server_is_overloaded", {"down": 1}),
        (529, "overloaded_error", {"down": 1}),
        (529, None, {"down": 1}),
        (None, "server_is_overloaded", {"down": 1}),
        (500, "server_error", {"down": 1}),
        (502, None, {"down": 1}),
        (429, "insufficient_quota", {"quota": 1}),
        (403, "billing_not_active", {"quota": 1}),
        (402, None, {"quota": 1}),
        (401, "invalid_api_key", {"auth": 1}),
        (403, "insufficient_permissions", {"forbidden": 1}),
        (408, None, None),
        (409, None, None),
        (425, None, None),
        (400, "context_length_exceeded", None),
        (404, "model_not_found", None),
        (418, None, None),
        (None, "server_error", None),
    ],
)
def test_what_an_error_of_a_provider_tells(status, code, counts):
    assert told_of(refused(status, code)) == counts


@pytest.mark.parametrize("code", ["api_key_missing", "api_key_unusable"])
def test_a_key_that_could_not_be_sent_tells_the_same_as_one_that_was_refused(code):
    assert told_of(Outcome(Kind.PROVIDER_REFUSED, Error(code, "words"))) == {"auth": 1}


def test_a_provider_that_was_not_reached_is_down():
    assert told_of(Outcome(Kind.NOT_SENT, Error("connection_failed", "words"))) == {"down": 1}


@pytest.mark.parametrize("code", ["timeout", "connection_lost", "stream_truncated", "malformed_response"])
def test_a_call_that_broke_says_nothing_of_the_others(code):
    assert told_of(Outcome(Kind.UNKNOWN, Error(code, "words"))) is None


@pytest.mark.parametrize("kind", [Kind.COMPLETED, Kind.CANCELLED, Kind.RELEASED, Kind.DETERMINISTIC])
def test_headers_that_lie_are_counted_whatever_the_end(kind):
    assert told_of(Outcome(kind)) is None
    assert told_of(Outcome(kind, told=Told(500, 400))) is None
    assert told_of(Outcome(kind, told=Told(lies=2))) == {"lies": 2}


def test_a_refusal_tells_how_long_to_wait_and_in_what_words():
    signal = signal_of(refused(429, "rate_limit_exceeded", retry_after_s=7.0, told=Told(wait_s=7)), at=AT)
    assert signal == Signal(AT, refusals=1, wait_s=7, words="rate_limit_exceeded: words")
    assert signal_of(refused(503, None, retry_after_s=4.0), at=AT).wait_s == 4


def test_a_wait_that_only_other_headers_imply_is_told_too():
    assert signal_of(refused(429, None, told=Told(wait_s=0.2)), at=AT).wait_s == 0.2


def test_a_retry_after_of_one_request_is_not_told_to_all():
    assert signal_of(refused(409, None, retry_after_s=9.0, told=Told(wait_s=9, lies=1)), at=AT).wait_s is None


def test_words_can_be_stored_and_are_short():
    signal = signal_of(Outcome(Kind.REJECTED, Error("a\0\ud800", "x" * 9_000, 429)), at=AT)
    assert len(signal.words) <= 500 and "\0" not in signal.words
    signal.words.encode()


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        (Told(), None),
        (Told(500, 26), None),
        (Told(500, 25), {"requests_limit": 500, "requests_left": 25}),
        (Told(60, 11), None),
        (Told(60, 10), {"requests_limit": 60, "requests_left": 10}),
        (Told(requests_left=0), {"requests_left": 0}),
        (Told(None, None, 1_000, 101), None),
        (Told(None, None, 1_000, 100), {"tokens_limit": 1_000, "tokens_left": 100}),
        (Told(500, 0, 1_000, 999), {"requests_limit": 500, "requests_left": 0}),
        (Told(wait_s=5, lies=3), None),
    ],
)
def test_what_is_left_is_told_only_where_it_is_little(told, fields):
    assert from_headers(told, at=AT) == (None if fields is None else Signal(AT, **fields))


def test_a_limit_below_the_believed_is_told_whatever_is_left():
    told = Told(400, 399, 20_000, 19_999)
    assert from_headers(told, rpm=400, tpm=20_000, at=AT) is None
    assert from_headers(told, rpm=500, tpm=20_000, at=AT) == Signal(AT, requests_limit=400)
    assert from_headers(told, rpm=300, tpm=30_000, at=AT) == Signal(AT, tokens_limit=20_000)


def test_what_is_left_of_a_limit_that_is_not_told_is_held_against_the_believed():
    assert from_headers(Told(tokens_left=900), tpm=10_000, at=AT) == Signal(AT, tokens_left=900)
    assert from_headers(Told(tokens_left=900), at=AT) is None
    assert from_headers(Told(requests_left=20), rpm=1_000, at=AT) == Signal(AT, requests_left=20)


def test_a_wait_ages_until_it_is_merged():
    early, late = Signal(100, refusals=1, wait_s=30), Signal(110, refusals=1, wait_s=15)
    assert merged(early, late).wait_s == 20
    assert merged(early, Signal(200, refusals=1)).wait_s == 0, "over long ago"
    assert merged(Signal(100), Signal(200)).wait_s is None


def test_of_two_that_say_what_is_left_the_later_is_right():
    full, empty = Signal(100, requests_left=9, words="first"), Signal(101, requests_left=2, tokens_left=5)
    for both in (merged(full, empty), merged(empty, full)):
        assert (both.requests_left, both.tokens_left, both.words, both.at) == (2, 5, "first", 101)


@given(ANY_SIGNAL, ANY_SIGNAL)
def test_no_count_is_lost_in_a_merge(a, b):
    both = merged(a, b)
    for name in COUNTS:
        assert getattr(both, name) == getattr(a, name) + getattr(b, name)


@given(ANY_SIGNAL, ANY_SIGNAL)
def test_a_merge_waits_until_the_last_of_both(a, b):
    ends_at = [signal.at + signal.wait_s for signal in (a, b) if signal.wait_s is not None]
    both = merged(a, b)
    if not ends_at:
        assert both.wait_s is None
    else:
        assert both.at + both.wait_s == pytest.approx(
            max(*ends_at, both.at) if len(ends_at) > 1 else max(ends_at[0], both.at)
        )


def test_what_is_appended_has_no_zeros_and_says_how_long_ago():
    signal = Signal(AT, refusals=2, wait_s=1.5, requests_left=0, words="slow")
    assert signal.json(AT + 3) == {"refusals": 2, "wait_s": 1.5, "requests_left": 0, "words": "slow", "ago_s": 3}
    assert Signal(AT).json(AT - 1) == {"ago_s": 0}


@given(ANY_SIGNAL)
def test_what_is_appended_is_json(signal):
    plain_json.dumps(signal.json(AT), allow_nan=False)
