"""The last hour of a pool in numbers, from its samples: what was used in each minute, and what was allowed.

Pure. A moment's use is that of the 60 seconds before it, which is what a provider's sliding window sees. Samples hold
sums; between two of them the use is taken for even. Where nothing happens no samples are taken, so that what a sample
after a long gap brings belongs to the gap's end.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

HOUR_S, MINUTE_S, STEP_S = 3600, 60, 15
GAP_S = 2.5 * STEP_S  # one sample may be missing, when a worker went and another took over
ROW_S = 300  # of the table


@dataclass(frozen=True, slots=True)
class Sample:
    """As models.PoolSample has it; `at_s` is of the Unix clock."""

    at_s: float
    requests: int
    tokens: float
    refusals: int
    queued: int
    running: int
    rpm: float
    tpm: float
    blocked_by: str | None


@dataclass(frozen=True, slots=True)
class Moment:
    """`requests` and `tokens`: used in the minute before; `refusals`: since the moment before."""

    at_s: float
    requests: float
    tokens: float
    refusals: int
    queued: int
    running: int
    rpm: float
    tpm: float
    blocked_by: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """Five minutes, up to `at_s`: the most of each, but for the refusals, which are all."""

    at_s: float
    requests: float
    rpm: float
    tokens: float
    tpm: float
    refusals: int
    queued: int
    running: int
    blocked_by: tuple[str, ...]


def last_hour(samples: Sequence[Sample], now_s: float) -> list[Moment]:
    """241 moments, the oldest first; none if nothing happened. `samples` may begin earlier, the oldest first."""
    if not samples:
        return []
    last_s = samples[-1].at_s
    end_s = (last_s if now_s - last_s < GAP_S else now_s) // STEP_S * STEP_S
    requests, tokens = _sums(samples)
    times = [sample.at_s for sample in samples]
    moments = []
    for at_s in (end_s - HOUR_S + STEP_S * number for number in range(HOUR_S // STEP_S + 1)):
        began = bisect_right(times, at_s)
        latest = samples[max(0, began - 1)]
        moments.append(
            Moment(
                at_s=at_s,
                requests=max(0.0, requests.at(at_s) - requests.at(at_s - MINUTE_S)),
                tokens=max(0.0, tokens.at(at_s) - tokens.at(at_s - MINUTE_S)),
                refusals=_refusals(samples, bisect_right(times, at_s - STEP_S), began),
                queued=latest.queued if began else 0,
                running=latest.running if began else 0,
                rpm=latest.rpm,
                tpm=latest.tpm,
                blocked_by=latest.blocked_by if began else None,
            )
        )
    return moments if any(map(_is_busy, moments)) else []


def table(moments: Sequence[Moment]) -> list[Row]:
    """The newest first."""
    per_row = ROW_S // STEP_S
    rows = [moments[max(0, end - per_row) : end] for end in range(len(moments), 1, -per_row)]
    return [
        Row(
            at_s=row[-1].at_s,
            requests=max(moment.requests for moment in row),
            rpm=max(moment.rpm for moment in row),
            tokens=max(moment.tokens for moment in row),
            tpm=max(moment.tpm for moment in row),
            refusals=sum(moment.refusals for moment in row),
            queued=max(moment.queued for moment in row),
            running=max(moment.running for moment in row),
            blocked_by=tuple(sorted({moment.blocked_by for moment in row if moment.blocked_by})),
        )
        for row in rows
    ]


def _sums(samples: Sequence[Sample]) -> tuple["_Sum", "_Sum"]:
    """Of requests and tokens. Requests never become fewer, but where a bucket was made anew: it begins at nothing."""
    requests, tokens = [(samples[0].at_s, 0.0)], [(samples[0].at_s, 0.0)]
    for before, after in pairwise(samples):
        is_new = after.requests < before.requests
        more_requests = after.requests - (0 if is_new else before.requests)
        more_tokens = after.tokens - (0 if is_new else before.tokens)
        requests.append((after.at_s, requests[-1][1] + more_requests))
        tokens.append((after.at_s, tokens[-1][1] + more_tokens))
    return _Sum(requests), _Sum(tokens)


class _Sum:
    """A sum that was read now and then: `at` gives it for any time between, and the nearest one outside."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        even = [points[0]]
        for (before_s, value), (after_s, then) in pairwise(points):
            if after_s - before_s > GAP_S:
                even.append((after_s - STEP_S, value))
            even.append((after_s, then))
        self._times, self._values = zip(*even, strict=True)

    def at(self, at_s: float) -> float:
        after = bisect_left(self._times, at_s)
        if after == 0:
            return self._values[0]
        if after == len(self._times):
            return self._values[-1]
        (before_s, after_s), (low, high) = self._times[after - 1 : after + 1], self._values[after - 1 : after + 1]
        return low + (high - low) * (at_s - before_s) / (after_s - before_s)


def _refusals(samples: Sequence[Sample], first: int, end: int) -> int:
    """What the samples from `first` up to `end` brought."""
    start = max(1, first)
    return sum(max(0, samples[i].refusals - samples[i - 1].refusals) for i in range(start, end))


def _is_busy(moment: Moment) -> bool:
    return bool(
        moment.requests or moment.tokens or moment.refusals or moment.queued or moment.running or moment.blocked_by
    )
