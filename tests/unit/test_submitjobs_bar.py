"""The bar of `manage.py submitjobs`."""

import io

import pytest

from llmjobs.job_files import showing
from llmjobs.job_files.showing import Bar, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(showing.time, "monotonic", lambda: now[0])
    return now


def test_it_says_how_far_how_fast_how_long_and_what_failed(clock):
    bar = Bar(Terminal())
    bar.begin("submitting", 10_000)
    clock[0] += 2
    bar.show(5_000, 3)

    assert bar.text() == "████████████░░░░░░░░░░░░  submitting 5,000 of 10,000  2,500/s  2 s left  3 failed"


def test_without_a_total_it_promises_nothing(clock):
    bar = Bar(Terminal())
    bar.begin("submitting", None)
    clock[0] += 1
    bar.show(500, 0)

    assert bar.text() == "submitting 500  500/s"


def test_it_is_drawn_over_itself_and_is_quiet_where_nobody_looks(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for out, is_drawn in ((Terminal(), True), (io.StringIO(), False)):
        bar = Bar(out)
        bar.begin("waiting", 10)
        bar.show(1, 0)
        bar.note("the queue is full: again in 7 s")  # too soon after the last
        clock[0] += 1
        bar.note("the queue is full: again in 7 s")
        bar.end()
        said = out.getvalue()
        assert said.count("\r\x1b[2K") == (3 if is_drawn else 0)
        assert ("again in 7 s" in said) is is_drawn
        assert said.endswith("\x1b[2K") is is_drawn


def test_it_stays_within_one_line(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    bar = Bar(out)
    bar.begin("submitting", 1_000_000)
    bar.show(123_456, 3)

    assert out.getvalue() == "\r\x1b[2K" + bar.text()[:39]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (75, "1 min 15 s"), (7_380, "2 h 3 min")])
def test_times_are_told_in_two_units_at_most(seconds, text):
    assert duration(seconds) == text
