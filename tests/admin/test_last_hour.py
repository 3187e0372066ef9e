"""The last hour in numbers: what was used in each minute, from sums that were read now and then."""

from itertools import pairwise

import pytest

from llmjobs.admin.last_hour import HOUR_S, Sample, last_hour, table

NOW_S = 1_800_000_000.0  # a multiple of 15


def sample(ago_s: float, requests: int = 0, **fields) -> Sample:
    values = {"tokens": 0.0, "refusals": 0, "queued": 0, "running": 0, "rpm": 600.0, "tpm": 1000.0, "blocked_by": None}
    return Sample(at_s=NOW_S - ago_s, requests=requests, **values | fields)


def used(moments):
    return {round(NOW_S - moment.at_s): round(moment.requests, 6) for moment in moments if moment.requests}


def test_of_nothing_there_is_no_picture():
    assert last_hour([], NOW_S) == []
    assert last_hour([sample(7000, 5), sample(5000, 90), sample(20, 90)], NOW_S) == [], "all of it is long ago"


def test_an_hour_has_a_moment_every_quarter_of_a_minute():
    moments = last_hour([sample(15, 0), sample(0, 10)], NOW_S)
    assert len(moments) == 241
    assert moments[-1].at_s - moments[0].at_s == HOUR_S
    assert {round(b.at_s - a.at_s) for a, b in pairwise(moments)} == {15}


def test_a_steady_rate_is_seen_as_it_was():
    moments = last_hour([sample(15 * n + 4, 10_000 - 150 * n) for n in range(300)][::-1], NOW_S)
    assert {round(moment.requests, 6) for moment in moments[1:]} == {600}


def test_a_minute_s_use_is_that_of_the_sixty_seconds_before():
    moments = last_hour([sample(120, 0), sample(105, 0), sample(90, 40), sample(75, 40), sample(0, 40)], NOW_S)
    assert used(moments) == {90: 40, 75: 40, 60: 40, 45: 40}


def test_what_came_after_a_gap_came_at_its_end():
    """Nobody takes samples of a pool that nobody uses."""
    moments = last_hour([sample(3000, 100), sample(600, 160), sample(585, 160)], NOW_S)
    assert used(moments) == {600: 60, 585: 60, 570: 60, 555: 60}


def test_the_first_of_the_hour_is_told_from_the_sample_before_it():
    moments = last_hour([sample(7000, 100), sample(3590, 130), sample(3575, 130)], NOW_S)
    assert max(moment.requests for moment in moments) == 30


def test_the_newest_moment_is_whole():
    """The last sample is some seconds old: a minute up to now would miss what nobody has read yet."""
    moments = last_hour([sample(15 * n + 14, 10_000 - 150 * n) for n in range(300)][::-1], NOW_S)
    assert moments[-1].requests == pytest.approx(600)


def test_a_bucket_that_was_made_anew_is_not_use():
    moments = last_hour([sample(30, 9_000, tokens=5e5), sample(15, 0), sample(0, 6, tokens=80.0)], NOW_S)
    assert max(moment.requests for moment in moments) == 6
    assert max(moment.tokens for moment in moments) == 80


def test_refusals_are_counted_once_each():
    samples = [sample(100, refusals=5), sample(50, refusals=7), sample(20, refusals=8), sample(5, refusals=8)]
    moments = last_hour(samples, NOW_S)
    assert sum(moment.refusals for moment in moments) == 3
    assert [round(NOW_S - moment.at_s) for moment in moments if moment.refusals] == [45, 15]


def test_what_waited_and_what_was_allowed_is_of_the_sample_before():
    samples = [sample(100, queued=5, running=2), sample(50, queued=0, rpm=300.0), sample(0, blocked_by="provider_down")]
    moments = {round(NOW_S - moment.at_s): moment for moment in last_hour(samples, NOW_S)}
    assert [moments[ago].queued for ago in (3600, 105, 90, 60, 45)] == [0, 0, 5, 5, 0]
    assert [moments[ago].rpm for ago in (3600, 60, 45)] == [600, 600, 300]
    assert [moments[ago].blocked_by for ago in (15, 0)] == [None, "provider_down"]


def test_the_table_has_a_row_for_five_minutes_the_newest_first():
    moments = last_hour([sample(15 * n, 10_000 - 150 * n, queued=n) for n in range(300)][::-1], NOW_S)
    rows = table(moments)
    assert len(rows) == 12
    assert rows[0].at_s == NOW_S and rows[0].at_s - rows[1].at_s == 300
    assert (rows[0].queued, rows[-1].queued) == (19, 239)
    assert rows[3].requests == pytest.approx(600)
