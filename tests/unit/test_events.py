"""Wake-ups: as few payloads as Postgres takes, and every entry in one of them."""

from hypothesis import given
from hypothesis import strategies as st

from llmjobs.events import PAYLOAD_BYTES_MAX, Wake, payloads

WAKES = st.builds(Wake, *[st.integers(1, 2**63 - 1)] * 3)


@given(st.lists(WAKES, max_size=600))
def test_every_entry_is_in_one_payload_and_none_is_cut(wakes):
    lines = list(payloads(wakes))
    assert [entry for line in lines for entry in line.split(" ")] == [str(wake) for wake in wakes]


@given(st.lists(WAKES, max_size=600))
def test_no_payload_is_longer_than_postgres_takes(wakes):
    assert all(0 < len(line.encode()) <= PAYLOAD_BYTES_MAX < 8_000 for line in payloads(wakes))


def test_many_entries_share_a_payload():
    assert len(list(payloads(Wake(n, 1, 1 << 20) for n in range(1, 101)))) == 1


def test_of_nothing_nothing_is_sent():
    assert list(payloads([])) == []
