"""Which lines the overview draws, over an hour or a day, and the table of the same numbers.

Lines of tiers have the same looks in each chart. A rate is a minute's, whatever the length of a moment.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from llmjobs import tallies
from llmjobs.admin.overview.charts import Chart, Line, Scale, chart
from llmjobs.admin.overview.links import Links
from llmjobs.admin.overview.words import NONE, brief, cents, dollars, percent, rough, seconds, short

TIERS_MAX = 6  # with a line of their own
TIER_LOOKS = ("a", "b", "c", "d", "e", "f")

JOBS, TOKENS, MONEY = Scale(rough), Scale(short), Scale(dollars, least=1e-6, empty=0.01, brief=cents)
TIMES, SHARES = Scale(seconds, least=0.1, brief=brief, is_clock=True), Scale(percent, least=0.1)


@dataclass(frozen=True, slots=True)
class Table:
    """`heads`: (title, number of columns) of each chart; `rows`: a moment each, the oldest first."""

    heads: Sequence[tuple[str, int]]
    columns: Sequence[str]
    rows: Sequence[SafeString]


@dataclass(frozen=True, slots=True)
class Drawn:
    key: str
    title: str
    scale: Scale
    lines: Sequence[Line]


def pictures(
    moments: Sequence[tallies.Moment], minutes: float, tiers: Sequence[str], links: Links
) -> tuple[list[Chart], Table]:
    """`minutes`: the length of a moment."""
    of = _Lines(moments, minutes, links)
    drawn = [*of.jobs_and_waits(), *of.by_tier(tiers[:TIERS_MAX])]
    order = ("jobs", "queued", "oldest", "wait", "run", "trouble", "tokens", "usd", "share")
    drawn.sort(key=lambda picture: order.index(picture.key))
    times = [timezone.localtime(moment.at) for moment in moments]
    charts, column = [], 0
    for picture in drawn:
        charts.append(chart(picture.key, picture.title, picture.lines, times, picture.scale, column=column))
        column += len(picture.lines)
    return charts, _table(drawn, [f"{at:%H:%M}" for at in times])


class _Lines:
    def __init__(self, moments: Sequence[tallies.Moment], minutes: float, links: Links) -> None:
        self._moments, self._minutes, self._links = moments, minutes, links

    def jobs_and_waits(self) -> Iterator[Drawn]:
        attempts, jobs = self._links.to("attempt"), self._links.jobs
        lost, refused = self._links.to("attempt", outcome="lost"), self._links.to("attempt", outcome="rejected")
        yield Drawn("jobs", "Jobs a minute", JOBS, [
            Line("started", "a-dashed", self._a_minute("started"), attempts),
            Line("completed", "good", self._a_minute("completed"), jobs(status="completed")),
            Line("failed", "bad", self._a_minute("failed", "dead"), self._links.dead_letters()),
        ])  # fmt: skip
        for key, title in (("wait", "Wait for a start"), ("run", "Run time")):
            yield Drawn(key, title, TIMES, [
                Line("p50", "a", self._known(f"{key}_p50_s"), attempts),
                Line("p95", "b", self._known(f"{key}_p95_s"), attempts),
            ])  # fmt: skip
        yield Drawn("trouble", "Trouble a minute", JOBS, [
            Line("429s", "bad", self._a_minute("refusals"), refused),
            Line("retries", "b", self._a_minute("retries"), attempts),
            Line("leases lost", "d", self._a_minute("lease_lost"), lost),
        ])  # fmt: skip
        yield Drawn("tokens", "Tokens a minute", TOKENS, [
            Line("input", "a", self._a_minute("input_tokens"), attempts),
            Line("output", "b", self._a_minute("output_tokens"), attempts),
        ])  # fmt: skip
        yield Drawn("usd", "Dollars a minute", MONEY, [Line("spent", "c", self._a_minute("usd"), attempts)])

    def by_tier(self, tiers: Sequence[str]) -> Iterator[Drawn]:
        def lines(value: Callable[[tallies.Moment, str], float | None], **filters: str) -> list[Line]:
            return [
                Line(
                    tier,
                    look,
                    [value(moment, tier) for moment in self._moments],
                    self._links.jobs(tier=tier, **filters),
                )
                for tier, look in zip(tiers, TIER_LOOKS, strict=False)
            ]

        yield Drawn("queued", "Waiting, by tier", JOBS, lines(_queued, status="queued"))
        yield Drawn("oldest", "The oldest that waits, by tier", TIMES, lines(_oldest, status="queued"))
        yield Drawn("share", "Share of the tokens, by tier", SHARES, lines(_share))

    def _a_minute(self, *names: str) -> list[float | None]:
        return [sum(float(getattr(moment, name)) for name in names) / self._minutes for moment in self._moments]

    def _known(self, name: str) -> list[float | None]:
        return [getattr(moment, name) for moment in self._moments]


def _queued(moment: tallies.Moment, tier: str) -> float | None:
    return moment.queued.get(tier, 0)


def _oldest(moment: tallies.Moment, tier: str) -> float | None:
    return moment.oldest_s.get(tier) or 0.0


def _share(moment: tallies.Moment, tier: str) -> float | None:
    total = sum(moment.tokens_by_tier.values())
    return moment.tokens_by_tier.get(tier, 0) / total if total else None


def _table(drawn: Sequence[Drawn], times: Sequence[str]) -> Table:
    """Made here and not in a template, which takes ten times as long for some thousand cells."""
    columns = [
        [NONE if value is None else picture.scale.words(value) for value in line.values]
        for picture in drawn
        for line in picture.lines
    ]
    rows = [
        format_html(
            '<tr><th scope="row">{}</th><td>{}</td></tr>',
            at,
            mark_safe("</td><td>".join(column[number] for column in columns)),  # noqa: S308 - numbers and units
        )
        for number, at in enumerate(times)
    ]
    return Table(
        heads=[(picture.title, len(picture.lines)) for picture in drawn if picture.lines],
        columns=[line.name for picture in drawn for line in picture.lines],
        rows=rows,
    )
