"""What happened, and how the queue stands by tier, in numbers: by the minute, by the day, since for ever. Reads only.

Owns the shapes that pages, alerts and /metrics read; not the counting, which is `tallying.py`'s, nor how many jobs
there are by client and priority, which is `stats.py`'s. What happened is some seconds old where a worker lives.
Invariant: each function is one or two statements, whose cost does not depend on the number of jobs or clients.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from django.db import connection

from llmjobs.histograms import Bucket, Histogram
from llmjobs.pinning import pinned
from llmjobs.sql import load

Period = Literal["hour", "day"]
OTHERS = "(others)"  # no model can be called so
MOMENTS = {"hour": (60, 60), "day": (600, 144)}  # seconds of one, how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What happened in a minute, in ten, or in the whole period. `queued` and `oldest_s` are by tier, as last sampled.

    `started` includes `retries` (starts after a failure); `attempts` ended then; `refusals` are attempts that a 429
    ended. Waits are of those that started then, runs of calls that completed then; None: there were none.
    """

    at: datetime
    submitted: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    expired: int = 0
    attempts: int = 0
    retries: int = 0
    lease_lost: int = 0
    refusals: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal = Decimal(0)
    wait_p50_s: float | None = None
    wait_p95_s: float | None = None
    run_p50_s: float | None = None
    run_p95_s: float | None = None
    tokens_by_tier: dict[str, int] = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)
    oldest_s: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TierNow:
    """`share` of all tokens of the last hour; `due_share` by its weight, among tiers that used some or have jobs."""

    name: str
    weight: float
    queued: int
    running: int
    scheduled: int
    oldest_s: float | None
    tokens_last_hour: int
    share: float
    due_share: float


class Day(NamedTuple):
    """UTC. `jobs` were submitted then, `attempts` ended then."""

    day: date
    jobs: int
    attempts: int
    input_tokens: int
    output_tokens: int
    usd: Decimal


class Total(NamedTuple):
    """`of` a job: `word` is submitted, started, retried (not in started) or its end. `of` an attempt: its outcome, or
    rate_limited, of one that a 429 ended. Tier and model are empty where they are gone.
    """

    tier: str
    model: str
    of: str
    word: str
    number: int
    input_tokens: int
    output_tokens: int
    usd: Decimal


class TotalTime(NamedTuple):
    """`measure`: wait, run or first_token."""

    tier: str
    model: str
    measure: str
    histogram: Histogram


class Totals(NamedTuple):
    counts: list[Total]
    times: list[TotalTime]


class _Row(NamedTuple):
    """Of moments.sql."""

    at: datetime
    sums: tuple[Any, ...]
    tokens_by_tier: dict[str, int]
    waits: list[Bucket]
    runs: list[Bucket]


SUMS = (
    "submitted", "started", "completed", "failed", "dead", "cancelled", "expired", "attempts", "retries", "lease_lost",
    "refusals", "input_tokens", "output_tokens", "usd",
)  # fmt: skip


def moments(period: Period) -> list[Moment]:
    """Sixty minutes, or 144 times ten minutes, oldest first, without gaps; the last one is not over yet."""
    rows, stood = _happened(period), _Stood(period)
    return [_moment([row], *stood.at(row.at)) for row in rows]


def summary(period: Period) -> Moment:
    """The whole hour, or day, that `moments` tells of, as one; `queued` and `oldest_s` as they were sampled last."""
    rows, stood = _happened(period), _Stood(period)
    return _moment(rows, *stood.at(rows[-1].at))


def totals(named: Sequence[str] | None = None) -> Totals:
    """Since for ever, by tier and model. Never falls: what retention removes stays counted.

    `named`: only these models by their names, and all others together: clients can make thousands by first use.
    """
    params = {"named": None if named is None else list(named), "others": OTHERS}
    times = _rows("total_times", **params)
    return Totals(
        [Total(*row) for row in _rows("totals", **params)],
        [TotalTime(tier, model, of, _histogram(_buckets(of_it))) for tier, model, of, *of_it in times],
    )


def tiers_now() -> list[TierNow]:
    """How each tier stands, the heaviest first. Exact, but for the tokens of the last seconds."""
    with pinned():
        return [TierNow(*row) for row in _rows("tiers_now")]


def client_days(client_id: int, days: int = 30) -> list[Day]:
    """The last so many days of a client, the oldest first, without gaps. Today is the last."""
    return [Day(*row) for row in _rows("client_days", client=client_id, days=days)]


def model_days(pool_id: int, days: int = 30) -> list[Day]:
    """The same of a model."""
    return [Day(*row) for row in _rows("model_days", pool=pool_id, days=days)]


def _moment(rows: Sequence[_Row], queued: dict[str, int], oldest_s: dict[str, float | None]) -> Moment:
    tokens = Counter[str]()
    for row in rows:
        tokens.update(row.tokens_by_tier)
    waits = _histogram(bucket for row in rows for bucket in row.waits)
    runs = _histogram(bucket for row in rows for bucket in row.runs)
    sums: dict[str, Any] = {name: sum(row.sums[place] or 0 for row in rows) for place, name in enumerate(SUMS)}
    sums["usd"] = Decimal(sums["usd"])
    return Moment(
        at=rows[0].at, **sums, tokens_by_tier=dict(tokens), queued=queued, oldest_s=oldest_s,
        wait_p50_s=waits.percentile(50), wait_p95_s=waits.percentile(95),
        run_p50_s=runs.percentile(50), run_p95_s=runs.percentile(95),
    )  # fmt: skip


def _happened(period: Period) -> list[_Row]:
    count = len(SUMS)
    return [
        _Row(at, tuple(more[:count]), more[count] or {}, _buckets(more[-6:-3]), _buckets(more[-3:]))
        for at, *more in _rows("moments", **_span(period))
    ]


class _Stood:
    """How the queue stood, asked moment by moment, the oldest first: a sample holds until the next."""

    def __init__(self, period: Period) -> None:
        self._samples = iter(sorted(_rows("tier_samples", **_span(period)), key=lambda row: row[0]))
        self._next = next(self._samples, None)
        self._queued: dict[str, int] = {}
        self._oldest_s: dict[str, float | None] = {}

    def at(self, moment: datetime) -> tuple[dict[str, int], dict[str, float | None]]:
        while self._next is not None and self._next[0] <= moment:
            _, tier, self._queued[tier], self._oldest_s[tier] = self._next
            self._next = next(self._samples, None)
        return dict(self._queued), dict(self._oldest_s)


def _span(period: Period) -> dict[str, int]:
    period_s, points = MOMENTS[period]
    return {"period_s": period_s, "points": points}


def _buckets(columns: Sequence[Sequence[Any] | None]) -> list[Bucket]:
    bounds, numbers, sums = columns
    return list(zip(bounds or (), numbers or (), sums or (), strict=True))


def _histogram(buckets: Iterable[Bucket]) -> Histogram:
    histogram = Histogram()
    histogram.add(buckets)
    return histogram


def _rows(name: str, **params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(load(name), params or None)
        return list(cursor.fetchall())
