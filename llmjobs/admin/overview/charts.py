"""Lines over time, as SVG made here: what the overview is drawn from.

Pure. Owns how a picture looks, not what it shows. No inline style, which the pages' policy forbids: shapes have
classes, and admin_overview.css gives them colours, light or dark. Lines differ by dashes too, not by colour alone; a
gap in the values is a gap in the line. `title` and `desc` say the same in words, and the page has a table besides.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from llmjobs.admin.overview.words import NONE

WIDTH, HEIGHT = 380, 132
LEFT, RIGHT, TOP, BOTTOM = 46, 6, 10, 20
BASE = HEIGHT - BOTTOM
SPARK_WIDTH, SPARK_HEIGHT = 380, 64
SPARK_TOP = 8
MARKS_MAX = 120
TICKS = 4
HOUR_S, QUARTER_S, SIX_HOURS_S = 3600, 900, 21_600

# Steps of an axis: of times those that a clock has.
CLOCK_STEPS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600,
    43_200, 86_400,
)  # fmt: skip

Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are said, at an axis in `brief`; `least`: of the axis's steps; `is_clock`: they are seconds; `empty`:
    how far the axis reaches where nothing happened.
    """

    words: Words
    least: float = 1
    empty: float = 1
    brief: Words | None = None
    is_clock: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """`look`: the class that has its colour and its dashes. None among `values`: nothing is known of that moment."""

    name: str
    look: str
    values: Sequence[float | None]
    url: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a chart's legend; `column` is where the page's table has its values, from 0."""

    name: str
    url: str
    swatch: SafeString
    now: str
    column: int


@dataclass(frozen=True, slots=True)
class Chart:
    key: str
    title: str
    keys: Sequence[Key]
    svg: SafeString


def chart(
    key: str, title: str, lines: Sequence[Line], times: Sequence[datetime], scale: Scale, *, column: int
) -> Chart:
    """`times` are those of the values, the oldest first, not empty."""
    known = [value for line in lines for value in line.values if value is not None]
    plot = _Plot(times, (max(known, default=0) or scale.empty) * 1.08)
    said = "; ".join(_in_words(line, scale.words) for line in lines)
    shapes = [*plot.grid(scale), *(shape for line in lines for shape in plot.line(line))]
    svg = format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="chart-{}-title chart-{}-desc" class="llmjobs-chart" '
        'data-left="{}" data-right="{}"><title id="chart-{}-title">{}</title><desc id="chart-{}-desc">{}.</desc>{}'
        '<line class="llmjobs-cursor" x1="0" x2="0" y1="{}" y2="{}" visibility="hidden"/></svg>',
        *(WIDTH, HEIGHT, key, key, LEFT / WIDTH, (WIDTH - RIGHT) / WIDTH, key, title, key, said or "nothing"),
        *(_joined(shapes), TOP, BASE),
    )
    keys = [
        Key(line.name, line.url, swatch(line.look), _said(line.values[-1], scale.words), column + number)
        for number, line in enumerate(lines)
    ]
    return Chart(key, title, keys, svg)


@dataclass(frozen=True, slots=True)
class Use:
    """A moment of a limit: what was used of it, 1 is all; `refused` answers with 429; whether it was blocked."""

    requests: float
    tokens: float
    refused: int
    is_blocked: bool


def spark(key: str, title: str, words: str, uses: Sequence[Use]) -> SafeString:
    """How much of its limits a model used: requests as an area, tokens as a line, 429s as marks, blocked as bands."""
    step = SPARK_WIDTH / max(1, len(uses) - 1)
    base = SPARK_HEIGHT - 1

    def y(share: float) -> float:
        return base - min(share, 1.15) / 1.15 * (base - SPARK_TOP)

    area = " ".join(f"{number * step:.1f},{y(use.requests):.1f}" for number, use in enumerate(uses))
    line = " ".join(f"{number * step:.1f},{y(use.tokens):.1f}" for number, use in enumerate(uses))
    marks = " ".join(f"M{i * step:.1f} {base - 8}l4 8h-8z" for i, use in enumerate(uses) if use.refused)
    shapes = [*_bands(uses, step, base), _level(y(1), "limit")]
    if uses:
        shapes += [
            f'<polygon points="0,{base} {area} {SPARK_WIDTH},{base}" class="llmjobs-used"/>',
            f'<polyline points="{line}" class="llmjobs-series llmjobs-look-b"/>',
        ]
    shapes += [_level(base, "axis"), f'<path d="{marks}" class="llmjobs-refusal"/>']
    return format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="spark-{}-title spark-{}-desc" class="llmjobs-spark">'
        '<title id="spark-{}-title">{}</title><desc id="spark-{}-desc">{}.</desc>{}</svg>',
        *(SPARK_WIDTH, SPARK_HEIGHT, key, key, key, title, key, words, _joined(shapes)),
    )


def swatch(look: str) -> SafeString:
    return format_html(
        '<svg viewBox="0 0 22 8" aria-hidden="true" class="llmjobs-swatch">'
        '<line x1="0" x2="22" y1="4" y2="4" class="llmjobs-series llmjobs-look-{}"/></svg>',
        look,
    )


class _Plot:
    """From a moment's number and a value to a point of the picture."""

    def __init__(self, times: Sequence[datetime], highest: float) -> None:
        self._times, self._highest = times, highest
        self._step = (WIDTH - LEFT - RIGHT) / max(1, len(times) - 1)

    def x(self, number: float) -> float:
        return LEFT + number * self._step

    def y(self, value: float) -> float:
        return BASE - min(value, self._highest) / self._highest * (BASE - TOP)

    def grid(self, scale: Scale) -> list[str]:
        shapes = []
        for value in ticks(self._highest, TICKS, scale):
            y = self.y(value)
            look = "grid" if value else "axis"
            shapes.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="llmjobs-{look}"/>')
            label = format_html("{}", (scale.brief or scale.words)(value)) if value else "0"
            shapes.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        for x, at in self._hours():
            place = "end" if x > WIDTH - 20 else "middle"
            shapes.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{BASE}" y2="{BASE + 3}" class="llmjobs-axis"/>')
            shapes.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="{place}">{at:%H:%M}</text>')
        return shapes

    def line(self, line: Line) -> list[str]:
        """A stretch of known values is a line; one that stands alone is a dot."""
        shapes = []
        points = [(number, value) for number, value in enumerate(line.values)]
        for is_known, run in groupby(points, key=lambda point: point[1] is not None):
            stretch = [f"{self.x(number):.1f},{self.y(value or 0):.1f}" for number, value in run] if is_known else []
            if len(stretch) == 1:
                x, _, y = stretch[0].partition(",")
                shapes.append(f'<circle cx="{x}" cy="{y}" r="1.8" class="llmjobs-dot llmjobs-look-{line.look}"/>')
            elif stretch:
                drawn = " ".join(stretch)
                shapes.append(f'<polyline points="{drawn}" class="llmjobs-series llmjobs-look-{line.look}"/>')
        return shapes

    def _hours(self) -> list[tuple[float, datetime]]:
        """Where the axis has a time: each quarter of an hour, or each six hours of a day."""
        first, last = self._times[0], self._times[-1]
        span_s = (last - first).total_seconds()
        every_s = QUARTER_S if span_s <= 2 * HOUR_S else SIX_HOURS_S
        local = timezone.localtime(first)
        midnight_s = local.hour * HOUR_S + local.minute * 60 + local.second
        found = []
        offset_s = -midnight_s % every_s
        while offset_s <= span_s and span_s:
            at = timezone.localtime(datetime.fromtimestamp(first.timestamp() + offset_s, tz=first.tzinfo))
            found.append((LEFT + offset_s / span_s * (WIDTH - LEFT - RIGHT), at))
            offset_s += every_s
        return found


def ticks(highest: float, about: int, scale: Scale) -> list[float]:
    """From 0 in at most so many steps of 1, 2 or 5 times a power of ten, or of a clock's; none below the least."""
    if scale.is_clock:
        step = next((step for step in CLOCK_STEPS if highest / step <= about), highest)
    else:
        step = max(scale.least, 10.0 ** math.floor(math.log10(highest / about)))
        step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= about)
    return [number * step for number in range(int(highest / step + 1e-9) + 1)]


def _bands(uses: Sequence[Use], step: float, base: float) -> list[str]:
    bands, number = [], 0
    for is_blocked, run in groupby(uses, key=lambda use: use.is_blocked):
        length = len(list(run))
        if is_blocked:
            left, width = number * step, max(2.0, (length - 1) * step)
            bands.append(
                f'<rect x="{left:.1f}" y="{SPARK_TOP}" width="{width:.1f}" height="{base - SPARK_TOP}" '
                'class="llmjobs-blocked"/>'
            )
        number += length
    return bands


def _level(y: float, look: str) -> str:
    return f'<line x1="0" x2="{SPARK_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="llmjobs-{look}"/>'


def _in_words(line: Line, words: Words) -> str:
    most = max((value for value in line.values if value is not None), default=None)
    return f"{line.name} now {_said(line.values[-1], words)}, most {_said(most, words)}"


def _said(value: float | None, words: Words) -> str:
    return NONE if value is None else words(value)


def _joined(shapes: Sequence[str]) -> SafeString:
    """Shapes of numbers and of words that were escaped above."""
    return mark_safe("".join(shapes))  # noqa: S308
