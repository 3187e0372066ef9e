"""What is read from a histogram lies where what was counted lies."""

import random
from bisect import bisect_right
from math import inf

import pytest

from llmjobs.histograms import BOUNDS_S, Histogram


def histogram_of(seconds: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.add(((*BOUNDS_S, inf)[bisect_right(BOUNDS_S, one)], 1, one) for one in seconds)
    return histogram


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("percent", [1, 50, 95, 100])
def test_a_percentile_lies_in_the_bucket_of_the_one_that_it_is(seed, percent):
    chance = random.Random(seed)
    seconds = sorted(chance.lognormvariate(1, 2) for _ in range(chance.randint(1, 400)))
    true = seconds[max(0, -(-len(seconds) * percent // 100) - 1)]
    found = histogram_of(seconds).percentile(percent)
    place = bisect_right(BOUNDS_S, true)
    assert (0, *BOUNDS_S)[place] <= found <= (*BOUNDS_S, max(seconds))[place]


def test_a_percentile_moves_along_its_bucket():
    half = histogram_of([2.5] * 100)
    assert (half.percentile(0), half.percentile(50), half.percentile(100)) == (2, 2.5, 3)


def test_what_took_longer_than_the_last_bound_took_what_it_took_on_average():
    assert histogram_of([1.0, 4_000.0, 5_000.0]).percentile(95) == 4_500


def test_of_nothing_there_is_no_percentile():
    assert Histogram().percentile(50) is None


def test_histograms_add_up_whatever_their_bounds():
    histogram = Histogram()
    histogram.add([(1.0, 3, 2.0), (inf, 1, 700.0)])
    histogram.add([(0.7, 2, 1.0), (1.0, 1, 0.9)])
    assert (histogram.count, histogram.sum_s) == (7, pytest.approx(703.9))
    assert histogram.cumulative([0.5, 0.75, 1.0, inf]) == [(0.5, 0), (0.75, 2), (1.0, 6), (inf, 7)]
