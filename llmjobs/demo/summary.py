"""What became of a load, a line a tier: read from the jobs and the ledger of their attempts, as an operator would.

Owns the figures and the table. `wait` is from a job's submit to its first claim, `total` to its end, both by the
database's clock. A percentile is the least value that so many percent of the jobs do not exceed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from django.db.models import Count, F, Min, Sum

from llmjobs.models import Job
from llmjobs.states import State

ROWS = 1_000  # jobs read at once
HEADINGS = (
    "tier", "jobs", "completed", "attempts", "tokens in", "out", "wait p50", "p95", "total p50", "p95", "cost",
)  # fmt: skip


@dataclass(slots=True)
class Line:
    name: str
    jobs: int = 0
    completed: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    waits_s: list[float] = field(default_factory=list)
    totals_s: list[float] = field(default_factory=list)

    def add(self, other: "Line") -> None:
        self.jobs += other.jobs
        self.completed += other.completed
        self.attempts += other.attempts
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_usd += other.cost_usd
        self.waits_s += other.waits_s
        self.totals_s += other.totals_s

    def cells(self) -> tuple[str, ...]:
        return (
            self.name, str(self.jobs), str(self.completed), str(self.attempts),
            f"{self.input_tokens:,}", f"{self.output_tokens:,}",
            seconds(percentile(self.waits_s, 50)), seconds(percentile(self.waits_s, 95)),
            seconds(percentile(self.totals_s, 50)), seconds(percentile(self.totals_s, 95)), f"${self.cost_usd:.4f}",
        )  # fmt: skip


def of_jobs(public_ids: Sequence[str]) -> list[Line]:
    """A line for each tier, the heaviest first, and one for all."""
    lines: dict[str, Line] = {}
    for start in range(0, len(public_ids), ROWS):
        jobs = (
            Job.objects.filter(public_id__in=public_ids[start : start + ROWS])
            .annotate(
                tier_name=F("tier__name"),
                spent_usd=F("result__cost_usd"),
                attempt_count=Count("attempts"),
                first_claimed_at=Min("attempts__claimed_at"),
                input_tokens=Sum("attempts__input_tokens"),
                output_tokens=Sum("attempts__output_tokens"),
            )
            .order_by("-tier__weight", "tier__name")
        )
        for job in jobs:
            lines.setdefault(job.tier_name, Line(job.tier_name)).add(_of_job(job))
    total = Line("all")
    for line in lines.values():
        total.add(line)
    return [*lines.values(), total]


def table(lines: Sequence[Line]) -> Iterator[str]:
    rows = [HEADINGS, *[line.cells() for line in lines]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([row[0].ljust(len(first)), *rest])
        if row is HEADINGS:
            yield "  ".join("─" * width for width in widths)


def percentile(values: Sequence[float], percent: float) -> float | None:
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def seconds(value_s: float | None) -> str:
    if value_s is None:
        return "-"
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else f"{value_s:.2f} s"


def _of_job(job: Job) -> Line:
    """`job` is annotated."""
    claimed_at, finished_at = job.first_claimed_at, job.finished_at  # type: ignore[attr-defined]
    return Line(
        job.tier_name,  # type: ignore[attr-defined]
        jobs=1,
        completed=int(job.state == State.COMPLETED),
        attempts=job.attempt_count,  # type: ignore[attr-defined]
        input_tokens=job.input_tokens or 0,  # type: ignore[attr-defined]
        output_tokens=job.output_tokens or 0,  # type: ignore[attr-defined]
        cost_usd=job.spent_usd or Decimal(0),  # type: ignore[attr-defined]
        waits_s=[(claimed_at - job.created_at).total_seconds()] if claimed_at else [],
        totals_s=[(finished_at - job.created_at).total_seconds()] if finished_at else [],
    )
