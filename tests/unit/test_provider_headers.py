"""What headers say of limits: OpenAI's form and Anthropic's, and what makes no sense in them."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.outcomes import Told
from llmjobs.providers.headers import COUNT_MAX, FORMS, WAIT_MAX_S, told
from llmjobs.providers.simulator.limits import duration

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:01Z",
    "anthropic-ratelimit-tokens-limit": "50000",
    "anthropic-ratelimit-tokens-remaining": "49000",
    "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:01Z",
}
EVERY_NAME = ["retry-after", "retry-after-ms"] + [
    form.format(word) for forms in FORMS.values() for form in forms for word in ("limit", "remaining", "reset")
]


def heard(headers, **options):
    return told(headers, now=NOW, **options)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, Told()),
        ({"content-type": "application/json"}, Told()),
        (OPENAI, Told(500, 499, 30_000, 29_000)),
        (ANTHROPIC, Told(50, 49, 50_000, 49_000)),
        ({name.title(): value for name, value in OPENAI.items()}, Told(500, 499, 30_000, 29_000)),
        ({"x-ratelimit-remaining-requests": "0"}, Told(requests_left=0)),
        ({"x-ratelimit-limit-tokens": "9.0"}, Told(tokens_limit=9)),
        ({"retry-after": "20"}, Told(wait_s=20)),
    ],
)
def test_each_form_is_read(headers, said):
    assert heard(headers) == said


def test_headers_are_read_as_the_transport_brings_them():
    assert heard(httpx2.Headers([(b"X-RateLimit-Limit-Requests", b"7"), (b"Retry-After-Ms", b"500")])) == Told(
        7, wait_s=0.5
    )


def test_anthropic_s_tokens_are_its_input_tokens_only_where_it_tells_no_others():
    by_kind = {"anthropic-ratelimit-input-tokens-limit": "40", "anthropic-ratelimit-output-tokens-limit": "8"}
    assert heard(by_kind) == Told(tokens_limit=40)
    assert heard(by_kind | ANTHROPIC).tokens_limit == 50_000


@pytest.mark.parametrize(
    ("reset", "reset_s"),
    [
        ("0s", 0),
        ("1s", 1),
        ("8.64s", 8.64),
        ("120ms", 0.12),
        ("6m0s", 360),
        ("1m30.951s", 90.951),
        ("1h0m2s", 3_602),
        ("500µs", 0.0005),
        ("12.5", 12.5),
        ("2027-01-15T08:00:10Z", 10),
        ("2027-01-15T09:00:10.5+01:00", 10.5),
        ("2027-01-15t08:00:10z", 10),
    ],
)
def test_a_refusal_without_retry_after_waits_for_room_as_its_reset_says(reset, reset_s):
    """One of ten comes back in a tenth of the time in which all come back."""
    headers = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": reset,
    }
    refused = heard(headers, status=429)
    assert refused.wait_s == pytest.approx(reset_s / 10) and refused.lies == 0
    assert heard(headers, status=200).wait_s is None, "only a refusal waits"
    assert heard(headers | {"retry-after": "3"}, status=429).wait_s == 3


def test_the_wait_is_that_of_the_dimension_that_is_exhausted():
    headers = OPENAI | {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "60s"}
    assert heard(headers, status=429).wait_s == pytest.approx(60 / 30_000)
    nearly = headers | {"x-ratelimit-remaining-tokens": "100", "x-ratelimit-remaining-requests": "50"}
    assert heard(nearly, status=429).wait_s == pytest.approx(60 / 29_900), "by its share of the limit"
    both = headers | {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"}
    assert heard(both, status=429).wait_s == pytest.approx(60 / 500)


def test_what_is_full_implies_no_wait():
    headers = {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "1s",
    }
    assert heard(headers, status=429) == Told(5, 5)


@given(st.floats(0, 86_000))
def test_durations_as_the_simulator_writes_them_are_read_back(wait_s):
    assert heard({"retry-after": duration(wait_s)}).wait_s == pytest.approx(wait_s, abs=0.001)


@pytest.mark.parametrize(
    "lie", ["-1", "nan", "inf", "1e300", "1e3", "0x10", "1_000", "", "many", "٣", "5,5", str(COUNT_MAX + 1)]
)
@pytest.mark.parametrize("name", ["limit-requests", "remaining-requests", "limit-tokens", "remaining-tokens"])
def test_a_count_that_makes_no_sense_is_counted_and_changes_nothing(name, lie):
    field = name.split("-")[1] + ("_limit" if "limit" in name else "_left")
    said = heard(OPENAI | {f"x-ratelimit-{name}": lie})
    assert (said.lies, getattr(said, field)) == (1, None)
    for other in {"requests_limit", "requests_left", "tokens_limit", "tokens_left"} - {field}:
        assert getattr(said, other) == getattr(heard(OPENAI), other)


@pytest.mark.parametrize(
    "lie",
    [
        "-1", "-1s", "nan", "inf", "1e9", "86401", "25h", "soon", "", "1s2", "s",
        "2015-10-21T07:28:00Z", "2027-99-15T08:00:10Z",
        "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 15 Jan 99999999 08:00:30 GMT", "2027-01-15T08:00:10", "2027-01-15",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"])
def test_a_wait_that_makes_no_sense_is_counted_and_changes_nothing(name, lie):
    said = heard(OPENAI | {name: lie}, status=200)
    assert said == Told(500, 499, 30_000, 29_000, lies=1)


def test_a_retry_after_that_lies_leaves_the_wait_to_the_other_that_does_not():
    assert heard({"retry-after-ms": "soon", "retry-after": "2"}) == Told(wait_s=2, lies=1)
    assert heard({"retry-after-ms": "1500", "retry-after": "-2"}) == Told(wait_s=1.5, lies=1)


def test_more_left_than_the_limit_makes_both_a_lie():
    assert heard(OPENAI | {"x-ratelimit-remaining-requests": "501"}) == Told(None, None, 30_000, 29_000, lies=1)


def test_a_limit_of_nothing_is_a_lie_of_a_provider_that_answers():
    headers = {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}
    assert heard(headers) == Told(lies=1)


def test_a_reset_of_a_moment_ago_is_no_lie():
    """Anthropic's dates have whole seconds: of a full limit it is a little in the past."""
    said = heard(ANTHROPIC | {"anthropic-ratelimit-requests-reset": "2027-01-15T07:59:59Z"})
    assert said.lies == 0


@given(st.dictionaries(st.sampled_from(EVERY_NAME), st.text(max_size=40) | st.from_regex(r"[-\d.:TZhms ]{1,30}")))
def test_no_header_whatever_breaks_an_answer_or_says_what_cannot_be(headers):
    said = told(headers, status=429)
    for count in (said.requests_limit, said.requests_left, said.tokens_limit, said.tokens_left):
        assert count is None or 0 <= count <= COUNT_MAX
    assert said.wait_s is None or 0 <= said.wait_s <= WAIT_MAX_S
    assert 0 <= said.lies <= len(headers)
