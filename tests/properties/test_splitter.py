"""Server-Sent Events out of raw bytes: how the network cut them makes no difference."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.sse import Splitter

LINE_END = st.sampled_from(["\n", "\r\n", "\r"])
LINE = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12)
FIELD = st.one_of(
    LINE.map(lambda text: "data: " + text),
    LINE.map(lambda text: "data:" + text),
    LINE.map(lambda text: ": " + text),
    LINE.map(lambda text: "event: " + text),
    LINE.map(lambda text: "id:" + text),
)
EVENTS = st.lists(st.lists(FIELD, min_size=1, max_size=4), max_size=5)


def split(chunks):
    splitter = Splitter(1 << 20)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events + list(splitter.close())


def meant(events):
    """What the HTML standard makes of these lines: the data fields of an event, joined by LF."""
    found = []
    for lines in events:
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        if data:
            found.append("\n".join(data).encode())
    return found


@st.composite
def streams(draw):
    """(events, bytes): with the line ends of all three kinds, and perhaps without the last blank line."""
    events, end = draw(EVENTS), draw(LINE_END)
    text = "".join("".join(line + end for line in lines) + end * draw(st.integers(1, 2)) for lines in events)
    if events and draw(st.booleans()):
        text = text.rstrip("\r\n") + draw(st.sampled_from(["", end]))
    return events, text.encode()


@given(streams())
def test_the_events_of_a_stream_are_those_that_the_standard_says(stream):
    events, raw = stream
    assert [event for event in split([raw]) if event] == [event for event in meant(events) if event]


@given(streams(), st.lists(st.integers(0, 400)))
def test_any_cut_of_the_same_bytes_gives_the_same_events(stream, cuts):
    _, raw = stream
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    chunks = [raw[start:end] for start, end in itertools.pairwise(places)]
    assert split(chunks) == split([raw])


@given(streams())
def test_bytes_that_come_one_by_one_give_the_same_events(stream):
    _, raw = stream
    assert split([raw[at : at + 1] for at in range(len(raw))]) == split([raw])


def test_an_event_is_given_as_soon_as_it_is_complete():
    splitter = Splitter(100)
    assert list(splitter.feed(b"data: a\n")) == []
    assert list(splitter.feed(b"\nda")) == [b"a"]
    assert list(splitter.feed(b"ta: b\n\n")) == [b"b"]


def test_an_event_without_end_does_not_fill_the_memory():
    splitter = Splitter(1_000)
    with pytest.raises(ValueError, match="1000 bytes"):
        for _ in range(2_000):
            list(splitter.feed(b"x"))
