"""How long a provider asks to wait: every form of the header, and what is no sane wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.headers import retry_after_s

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        ({"retry-after": "Fri, 15 Jan 2027 07:59:58 GMT"}, 0),  # clocks differ
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after": "86401"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Fri, 99 Foo 2027"}, None),
        ({"retry-after": "Fri, 15 Jan 99999999 08:00:30 GMT"}, None),
    ],
)
def test_retry_after_in_every_form(headers, wait_s):
    assert retry_after_s(headers, now=NOW) == wait_s


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_no_header_whatever_breaks_the_attempt(headers):
    wait_s = retry_after_s(headers)
    assert wait_s is None or 0 <= wait_s <= 86_400
