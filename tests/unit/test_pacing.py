"""The database's clock as a worker sees it, and how late its calls leave."""

import pytest

from llmjobs.pacing import FORGET_S, HALVES_IN_S, DatabaseClock, Lateness

UNIX_S = 1_795_000_000.0  # there; here it is seconds since whenever


def test_the_answer_that_came_soonest_tells_the_time() -> None:
    clock = DatabaseClock()
    for asked_at, took_s in ((10.0, 0.4), (11.0, 0.003), (12.0, 0.2)):
        clock.observe(UNIX_S + asked_at, asked_at, asked_at + took_s)
    assert clock.here(UNIX_S + 13) == pytest.approx(13.003)


def test_a_slow_answer_does_not_put_the_slots_off() -> None:
    """Or its calls would go out seconds late, and think themselves in time."""
    clock = DatabaseClock()
    clock.observe(UNIX_S + 10, 10, 10.002)
    clock.observe(UNIX_S + 20, 20, 50)  # the worker stood still in mid-claim
    assert clock.here(UNIX_S + 20.5) == pytest.approx(20.502)


@pytest.mark.parametrize("by_s", [-3_600, -5, 5, 3_600])
def test_a_clock_that_was_set_is_believed_at_once(by_s: float) -> None:
    clock = DatabaseClock()
    clock.observe(UNIX_S + 10, 10, 10.002)
    clock.observe(UNIX_S + 20 + by_s, 20, 20.004)
    assert clock.here(UNIX_S + 21 + by_s) == pytest.approx(21.004)


def test_a_clock_that_drifts_is_followed() -> None:
    clock = DatabaseClock()
    for minute in range(10):
        there, here = UNIX_S + minute * FORGET_S, minute * FORGET_S * 1.0005
        clock.observe(there, here, here + 0.002)
    assert clock.here(UNIX_S + 10 * FORGET_S) == pytest.approx(10 * FORGET_S * 1.0005, abs=0.1)


def test_nothing_is_known_before_the_first_answer() -> None:
    with pytest.raises(ValueError, match="observation"):
        DatabaseClock().here(UNIX_S)


def test_lateness_is_the_most_of_late_and_is_forgotten_by_halves() -> None:
    lateness = Lateness()
    lateness.note(0.4, 10.0)
    lateness.note(0.1, 11.0)
    assert lateness.at(11.0) == pytest.approx(0.4, rel=0.05)
    assert lateness.at(10.0 + HALVES_IN_S) == pytest.approx(0.2)
    lateness.note(-5.0, 400.0)
    assert 0 <= lateness.at(400.0) < 0.001
