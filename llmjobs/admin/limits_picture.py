"""The last hour of a pool as pictures: used against allowed, what waited, what was in flight. SVG, made here.

The pictures stand inside an admin page, whose policy allows no inline style: shapes have classes, and admin.css gives
them the admin's own colours, light or dark. Shapes and words say what colours do. `title` and `desc` say the same to
who can't see it, and the page has a table besides.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llmjobs.admin.last_hour import HOUR_S, Moment

WIDTH, HEIGHT = 480, 168
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 18, 22
BASE = HEIGHT - BOTTOM
TICK_S = 900
FAR = 10  # an allowed line so many times above all that was used is told, not drawn
MARKS_MAX = 120

Value = Callable[[Moment], float]


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    summary: str
    svg: SafeString


def figures(name: str, moments: Sequence[Moment]) -> list[Figure]:
    """Of the pool `name`; `moments` are of an hour, and not empty."""
    return [
        _figure("requests", f"Requests a minute of {name}", moments, lambda m: m.requests, lambda m: m.rpm),
        _figure("tokens", f"Tokens a minute of {name}", moments, lambda m: m.tokens, lambda m: m.tpm),
        _figure("queued", f"Jobs of {name} that wait", moments, lambda m: m.queued),
        _figure("running", f"Calls of {name} in flight", moments, lambda m: m.running),
    ]


TITLES = {
    "requests": "Requests a minute", "tokens": "Tokens a minute", "queued": "Waiting", "running": "In flight",
}  # fmt: skip


def _figure(kind: str, title: str, moments: Sequence[Moment], value: Value, allowed: Value | None = None) -> Figure:
    last, most = value(moments[-1]), max(map(value, moments))
    summary = f"now {_number(last)}, most {_number(most)}"
    if allowed is not None:
        summary = f"now {_number(last)} of {_number(allowed(moments[-1]))} allowed, most {_number(most)}"
    refused = sum(moment.refusals for moment in moments) if kind == "requests" else 0
    if refused:
        summary += f", {refused:,} answered with 429"
    highest = most if allowed is None else _highest(most, max(map(allowed, moments)))
    plot = _Plot(moments[0].at_s, max(highest, 1.0) * 1.06)
    shapes = [
        *plot.blocked(moments),
        *plot.grid(),
        *plot.used(moments, value, kind),
        *(plot.allowed(moments, allowed, most) if allowed is not None else ()),
        *(plot.refusals(moments) if refused else ()),
    ]
    head = format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-labelledby="llmjobs-{}-title llmjobs-{}-desc" class="llmjobs-plot">'
        '<title id="llmjobs-{}-title">{}</title><desc id="llmjobs-{}-desc">The last hour: {}.</desc>',
        *(WIDTH, HEIGHT, kind, kind, kind, title, kind, summary),
    )
    return Figure(
        TITLES[kind], summary, format_html("{}{}</svg>", head, format_html_join("", "{}", ((s,) for s in shapes)))
    )


class _Plot:
    """From an hour's beginning and the highest value to a point of the picture."""

    def __init__(self, from_s: float, highest: float) -> None:
        self._from_s, self._highest = from_s, highest

    def x(self, at_s: float) -> float:
        return LEFT + (at_s - self._from_s) / HOUR_S * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return BASE - min(value, self._highest) / self._highest * (BASE - TOP)

    def grid(self) -> list[SafeString]:
        shapes = []
        for value in _ticks(self._highest, 4):
            y = self.y(value)
            shapes += [_line(LEFT, y, WIDTH - RIGHT, y, "grid"), _text(LEFT - 6, y + 4, _short(value), "end")]
        first = math.ceil(self._from_s / TICK_S)
        for number in range(first, math.floor((self._from_s + HOUR_S) / TICK_S) + 1):
            x = self.x(number * TICK_S)
            place = "end" if x > WIDTH - 20 else "middle"
            shapes += [_line(x, BASE, x, BASE + 4, "axis"), _text(x, HEIGHT - 4, clock(number * TICK_S), place)]
        return [*shapes, _line(LEFT, BASE, WIDTH - RIGHT, BASE, "axis")]

    def used(self, moments: Sequence[Moment], value: Value, kind: str) -> list[SafeString]:
        points = " ".join(f"{self.x(moment.at_s):.1f},{self.y(value(moment)):.1f}" for moment in moments)
        ends = f"{self.x(moments[-1].at_s):.1f},{BASE} {self.x(moments[0].at_s):.1f},{BASE}"
        return [
            format_html('<polygon points="{} {}" class="llmjobs-area llmjobs-of-{}"/>', points, ends, kind),
            format_html('<polyline points="{}" class="llmjobs-line llmjobs-of-{}"/>', points, kind),
        ]

    def allowed(self, moments: Sequence[Moment], value: Value, most: float) -> list[SafeString]:
        now = value(moments[-1])
        if _is_far(most, max(map(value, moments))):
            return [_text(LEFT + 4, TOP - 6, f"allowed: {_number(now)}, far above", "start")]
        path: list[str] = []
        before = math.nan
        for moment in moments:
            if (allowed := value(moment)) != before:
                path.append(
                    f"{'H' if path else 'M'}{self.x(moment.at_s):.1f}{'V' if path else ' '}{self.y(allowed):.1f}"
                )
                before = allowed
        path.append(f"H{self.x(moments[-1].at_s):.1f}")
        label = _text(WIDTH - RIGHT, max(11, self.y(now) - 5), f"allowed: {_number(now)}", "end")
        return [format_html('<path d="{}" class="llmjobs-allowed"/>', "".join(path)), label]

    def refusals(self, moments: Sequence[Moment]) -> list[SafeString]:
        """A mark on the axis where the provider said 429."""
        refused = [moment for moment in moments if moment.refusals]
        marks = " ".join(f"M{self.x(moment.at_s):.1f} {BASE - 9}l4.5 9h-9z" for moment in refused[:MARKS_MAX])
        return [format_html('<path d="{}" class="llmjobs-refusal"/>', marks)]

    def blocked(self, moments: Sequence[Moment]) -> list[SafeString]:
        bands = []
        for is_blocked, run in groupby(moments, key=lambda moment: moment.blocked_by is not None):
            if is_blocked:
                inside = list(run)
                left, right = self.x(inside[0].at_s), self.x(inside[-1].at_s)
                bands.append((f"{left:.1f}", TOP, f"{max(2.0, right - left):.1f}", BASE - TOP))
        return [format_html('<rect x="{}" y="{}" width="{}" height="{}" class="llmjobs-blocked"/>', *b) for b in bands]


def _highest(used: float, allowed: float) -> float:
    return used if _is_far(used, allowed) else max(used, allowed)


def _is_far(used: float, allowed: float) -> bool:
    return 0 < used < allowed / FAR


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> SafeString:
    where = (f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}", kind)
    return format_html('<line x1="{}" y1="{}" x2="{}" y2="{}" class="llmjobs-{}"/>', *where)


def _text(x: float, y: float, words: str, anchor: str) -> SafeString:
    return format_html('<text x="{}" y="{}" text-anchor="{}">{}</text>', f"{x:.1f}", f"{y:.1f}", anchor, words)


def clock(at_s: float) -> str:
    return f"{timezone.localtime(datetime.fromtimestamp(at_s, UTC)):%H:%M}"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _ticks(most: float, about: int) -> list[float]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, about so many; of whole numbers."""
    step = max(1.0, 10.0 ** math.floor(math.log10(most / about)))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= about)
    return [number * step for number in range(int(most / step) + 1)]
