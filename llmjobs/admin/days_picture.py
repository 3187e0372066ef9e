"""Thirty days as bars: what a client or a model cost and used, day by day. SVG, made here. Pure.

As limits_picture.py: shapes have classes, whose colours are in admin_configuration.css; `title` and `desc` say in words
what is drawn, each bar says its day and value, and the page has a table of the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llmjobs.tallies import Day

WIDTH, HEIGHT = 480, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 4, 10, 22
BASE = HEIGHT - BOTTOM
GAP = 2.0
TICKS, LABEL_EVERY = 3, 7

Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Part:
    """Of a day's bar, from the bottom up. `kind` names its class."""

    kind: str
    value: Callable[[Day], float]


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    summary: str
    svg: SafeString


def figures(name: str, days: Sequence[Day]) -> list[Figure]:
    """Of `name`; `days` are not empty, the oldest first."""
    tokens = (Part("input", lambda day: day.input_tokens), Part("output", lambda day: day.output_tokens))
    return [
        _figure("usd", f"Dollars a day of {name}", days, (Part("usd", lambda day: float(day.usd)),), dollars),
        _figure("tokens", f"Tokens a day of {name}", days, tokens, whole),
    ]


def dollars(amount: float) -> str:
    return f"${amount:,.2f}" if amount >= 0.01 or amount == 0 else f"${amount:.4f}"


def whole(number: float) -> str:
    return f"{number:,.0f}"


def _figure(kind: str, title: str, days: Sequence[Day], parts: Sequence[Part], words: Words) -> Figure:
    values = [sum(part.value(day) for part in parts) for day in days]
    summary = f"{words(sum(values))} in {len(days)} days, today {words(values[-1])}, most {words(max(values))}"
    most = max(values) or 1.0
    shapes = [*_grid(most, words), *_bars(days, parts, most, words), *_labels(days)]
    head = format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="llmjobs-{}-title llmjobs-{}-desc" class="llmjobs-plot">'
        '<title id="llmjobs-{}-title">{}</title><desc id="llmjobs-{}-desc">{}.</desc>',
        *(WIDTH, HEIGHT, kind, kind, kind, title, kind, summary),
    )
    heading = "Dollars a day" if kind == "usd" else "Tokens a day"
    drawn = format_html_join("", "{}", ((shape,) for shape in shapes))
    return Figure(heading, summary, format_html("{}{}</svg>", head, drawn))


def _bars(days: Sequence[Day], parts: Sequence[Part], most: float, words: Words) -> list[SafeString]:
    width = (WIDTH - LEFT - RIGHT) / len(days)
    shapes = []
    for number, day in enumerate(days):
        x, below = LEFT + number * width, 0.0
        rects = []
        for part in parts:
            value = part.value(day)
            height = value / most * (BASE - TOP)
            top = BASE - below - height
            rects.append((f"{x + GAP / 2:.1f}", f"{top:.1f}", f"{width - GAP:.1f}", f"{height:.1f}", part.kind))
            below += height
        drawn = format_html_join("", '<rect x="{}" y="{}" width="{}" height="{}" class="llmjobs-day-{}"/>', rects)
        said = f"{day.day:%Y-%m-%d}: {words(sum(part.value(day) for part in parts))}"
        shapes.append(format_html("<g><title>{}</title>{}</g>", said, drawn))
    return shapes


def _grid(most: float, words: Words) -> list[SafeString]:
    shapes = [_line(BASE, "axis")]
    step = _step(most)
    for number in range(1, int(most / step + 1e-9) + 1):
        y = BASE - number * step / most * (BASE - TOP)
        shapes += [_line(y, "grid"), _text(LEFT - 6, y + 4, _short(number * step, words), "end")]
    return shapes


def _labels(days: Sequence[Day]) -> list[SafeString]:
    """A day each week, counted back from today."""
    width = (WIDTH - LEFT - RIGHT) / len(days)
    shown = range(len(days) - 1, -1, -LABEL_EVERY)
    return [
        _text(
            min(LEFT + (number + 0.5) * width, WIDTH - RIGHT),
            HEIGHT - 5,
            f"{days[number].day:%b %-d}",
            "end" if number == len(days) - 1 else "middle",
        )
        for number in shown
    ]


def _step(most: float) -> float:
    """One, two or five times a power of ten, so that there are `TICKS` at most."""
    power = 10.0 ** math.floor(math.log10(most / TICKS))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= TICKS)


def _short(value: float, words: Words) -> str:
    sign = "$" if words is dollars else ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{sign}{value / size:g}{unit}"
    if sign and value < 0.001:
        return f"${value * 1e6:.4g}µ"  # there is no room for zeros
    return f"{sign}{value:.4g}"


def _line(y: float, kind: str) -> SafeString:
    where = (LEFT, WIDTH - RIGHT, f"{y:.1f}", f"{y:.1f}", kind)
    return format_html('<line x1="{}" x2="{}" y1="{}" y2="{}" class="llmjobs-{}"/>', *where)


def _text(x: float, y: float, words: str, anchor: str) -> SafeString:
    return format_html('<text x="{}" y="{}" text-anchor="{}">{}</text>', f"{x:.1f}", f"{y:.1f}", anchor, words)
