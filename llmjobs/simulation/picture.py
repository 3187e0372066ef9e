"""The figures as a picture: an SVG of one column, so that a phone shows it as it is; light or dark, as its reader is.

Above, a panel a policy: what each tier has had of all that was done under full load, on a pale band that is its share
by weight. Below, a row a client: how long it waits as the calls arrive. Shapes tell apart what colours do.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from html import escape

from llmjobs.simulation.measures import ClientFigures, Figures
from llmjobs.simulation.policies import FAIR, FIFO, ROUND_ROBIN

TIERS_MAX = 6
ROWS_MAX = 18  # clients drawn
WIDTH, LEFT, RIGHT = 440, 46, 14
PANEL, GAP = 104, 56  # heights: a panel's plot, and what is between two
ROW, GROUP = 17, 6
NO_BREAK = "\u00a0"
CHARS = 56  # of a line, in the widest of the fonts that may stand in for the reader's
NAMES = {FAIR: "Fair order", ROUND_ROBIN: "Round robin", FIFO: "First in, first out"}
WAIT_TICKS_S = (0, 1, 10, 100, 1_000, 10_000, 100_000)

STYLE = """
svg { --bg: #ffffff; --fg: #1c2127; --muted: #5d6873; --grid: #e4e7eb; --t0: #3b5bdb; --t1: #0b8a79; --t2: #c76a14;
  --t3: #9c36b5; --t4: #52616b; --t5: #c2255c; background: var(--bg); max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) {
  svg { --bg: #15181c; --fg: #e7eaee; --muted: #9aa5b1; --grid: #2b3138; --t0: #8da2ff; --t1: #42c9b4; --t2: #f3a95c;
    --t3: #d48aee; --t4: #a9b7c3; --t5: #f47b9b; } }
text { font: 12px system-ui, sans-serif; fill: var(--fg); }
.h { font-size: 15px; font-weight: 600; } .b { font-weight: 600; } .m { fill: var(--muted); } .e { text-anchor: end; }
.c { text-anchor: middle; } .g { stroke: var(--grid); } .a { stroke: var(--muted); stroke-width: 1.5; }
.line { fill: none; stroke-width: 1.75; stroke-linejoin: round; } .band { stroke-width: 7; opacity: 0.22; }
.fair { fill: var(--t0); } .price { stroke: var(--t0); stroke-width: 2.5; opacity: 0.35; }
.rr { fill: none; stroke: var(--t2); stroke-width: 1.75; }
.fifo { fill: none; stroke: var(--muted); stroke-width: 1.5; }
"""


def svg(figures: Figures, title: str) -> str:
    drawing = _Drawing()
    drawing.text(LEFT - 34, 26, "What each tier gets under full load", "h")
    drawing.text(LEFT - 34, 45, "Weighted tokens, millions. Pale band: share by weight.", "m")
    _tier_legend(drawing, figures)
    drawing.down(112)
    for name, curve in figures.curves.items():
        _panel(drawing, figures, name, curve)
    _waits(drawing, figures)
    for line in textwrap.wrap(title.replace(" ", NO_BREAK).replace(f",{NO_BREAK}", ", "), CHARS):
        drawing.text(LEFT - 34, 0, line, "m")
        drawing.down(16)
    return drawing.document("Three rules of order on one load", _description(figures, title))


class _Drawing:
    """Collects elements from the top to the bottom; `down` moves on, and all y count from there."""

    def __init__(self) -> None:
        self._elements: list[str] = []
        self._top = 0.0

    def down(self, by: float) -> None:
        self._top += by

    def text(self, x: float, y: float, words: str, style: str = "") -> None:
        self._add("text", f'x="{x:.1f}" y="{y + self._top:.1f}" class="{style}"', escape(words))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str, extra: str = "") -> None:
        top = self._top
        where = f'x1="{x1:.1f}" y1="{y1 + top:.1f}" x2="{x2:.1f}" y2="{y2 + top:.1f}"'
        self._add("line", f'{where} class="{style}" {extra}'.rstrip())

    def curve(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        path = " ".join(f"{x:.1f},{y + self._top:.1f}" for x, y in points)
        self._add("polyline", f'points="{path}" class="line" stroke="{colour}"')

    def mark(self, name: str, x: float, y: float) -> None:
        """How long a policy's wait is, or one when alone."""
        y += self._top
        match name:
            case _ if name == FAIR:
                self._add("circle", f'cx="{x:.1f}" cy="{y:.1f}" r="4" class="fair"')
            case _ if name == ROUND_ROBIN:
                self._add("path", f'd="M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z" class="rr"')
            case _ if name == FIFO:
                self._add("path", f'd="M{x - 4:.1f} {y - 3.5:.1f}h8l-4 7.5z" class="fifo"')
            case _:
                self._add("line", f'x1="{x:.1f}" y1="{y - 5:.1f}" x2="{x:.1f}" y2="{y + 5:.1f}" class="a"')

    def document(self, title: str, description: str) -> str:
        height = math.ceil(self._top)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">'
        )
        names = f'<title id="title">{escape(title)}</title>\n<desc id="desc">{escape(description)}</desc>'
        ground = '<rect width="100%" height="100%" fill="var(--bg)"/>'
        return "\n".join([head, names, f"<style>{STYLE}</style>", ground, *self._elements, "</svg>", ""])

    def _add(self, name: str, attributes: str, content: str = "") -> None:
        self._elements.append(f"<{name} {attributes}>{content}</{name}>" if content else f"<{name} {attributes}/>")


def _tier_legend(drawing: _Drawing, figures: Figures) -> None:
    x = float(LEFT - 34)
    drawing.text(x, 69, "weight", "m")
    x += 48
    for tier, weight in enumerate(figures.weights):
        drawing.line(x, 65, x + 18, 65, "line", f'stroke="{_colour(tier)}"')
        drawing.text(x + 24, 69, f"{weight:g}", "b")
        x += 24 + 8 * len(f"{weight:g}") + 18


def _panel(drawing: _Drawing, figures: Figures, name: str, curve: Sequence[tuple[float, ...]]) -> None:
    totals = [sum(tiers) for tiers in curve]
    x_most = max(sum(curve[-1]) for curve in figures.curves.values())
    y_most = max(figures.ideal_shares) * x_most
    y_most = max(y_most, *(max(last) for last in (curve[-1] for curve in figures.curves.values())))
    across, up = (WIDTH - LEFT - RIGHT) / x_most, PANEL / y_most
    drawing.text(LEFT - 34, -10, NAMES[name], "b")
    drawing.text(WIDTH - RIGHT, -10, f"{_percent(figures.policies[name].misplaced)} went to the wrong tier", "m e")
    for value in _ticks(y_most, 4):
        y = PANEL - value * up
        drawing.line(LEFT, y, WIDTH - RIGHT, y, "g")
        drawing.text(LEFT - 7, y + 4, f"{value / 1e6:g}", "m e")
    for value in _ticks(x_most, 5):
        drawing.text(LEFT + value * across, PANEL + 16, f"{value / 1e6:g}", "m c")
    for tier, share in enumerate(figures.ideal_shares):
        end = LEFT + totals[-1] * across, PANEL - share * totals[-1] * up
        drawing.line(LEFT, PANEL, *end, "band", f'stroke="{_colour(tier)}"')
    for tier in range(len(figures.weights)):
        points = [(LEFT + total * across, PANEL - tiers[tier] * up) for total, tiers in zip(totals, curve, strict=True)]
        drawing.curve([(LEFT, PANEL), *points], _colour(tier))
    drawing.down(PANEL + GAP)


def _waits(drawing: _Drawing, figures: Figures) -> None:
    rows = _drawn(figures)
    drawing.down(14)
    drawing.text(LEFT - 34, 0, "How long each client waits as its calls arrive", "h")
    drawing.text(LEFT - 34, 19, "Seconds in which 95 % of its calls have begun.", "m")
    drawing.text(LEFT - 34, 36, "Bar: what sharing adds to what it would wait alone.", "m")
    drawing.down(19)
    x = float(LEFT - 34)
    for name, words in (("", "alone"), *NAMES.items()):
        drawing.mark(name, x + 5, 39)
        drawing.text(x + 15, 43, words)
        x += 30 + 6.9 * len(words)
    drawing.down(74)
    left = LEFT + 62
    longest_s = max(wait.p95_s for client in rows for wait in client.waits.values())
    ticks_s = [tick_s for tick_s in WAIT_TICKS_S if tick_s <= max(longest_s, 1)]
    across = (WIDTH - RIGHT - 8 - left) / math.log1p(max(longest_s, 1))
    tiers = {client.tier for client in rows}
    height = ROW * (len(rows) + len(tiers)) + GROUP * (len(tiers) - 1)
    for tick_s in ticks_s:
        at = left + math.log1p(tick_s) * across
        drawing.line(at, -8, at, height - 8, "g")
        drawing.text(at, height + 8, f"{tick_s:,}", "m c")
    tier = -1
    for client in rows:
        if client.tier != tier:
            drawing.down(GROUP if tier >= 0 else 0)
            tier = client.tier
            drawing.text(LEFT - 34, 4, f"weight {figures.weights[tier]:g}", "b")
            drawing.down(ROW)
        drawing.text(left - 12, 4, f"{client.calls:,} calls", "m e")
        drawing.line(left, 0, WIDTH - RIGHT, 0, "g")
        alone, fair = (left + math.log1p(wait.p95_s) * across for wait in (client.alone, client.waits[FAIR]))
        drawing.line(alone, 0, fair, 0, "price")
        drawing.mark("", alone, 0)
        for name in (FIFO, ROUND_ROBIN, FAIR):
            drawing.mark(name, left + math.log1p(client.waits[name].p95_s) * across, 0)
        drawing.down(ROW)
    drawing.down(40)


def _drawn(figures: Figures) -> list[ClientFigures]:
    """Of each tier as many, evenly from the one that asks least to the one that asks most."""
    rows: list[ClientFigures] = []
    tiers = sorted({client.tier for client in figures.clients})
    for tier in tiers:
        mine = sorted((client for client in figures.clients if client.tier == tier), key=lambda client: client.calls)
        count = min(len(mine), ROWS_MAX // len(tiers))
        rows += [mine[round(at * (len(mine) - 1) / max(1, count - 1))] for at in range(count)]
    return rows


def _description(figures: Figures, title: str) -> str:
    """The same in words, for who can't see it."""
    words = [f"{title}."]
    for name, policy in figures.policies.items():
        shares = ", ".join(_percent(share) for share in policy.shares)
        words.append(f"{NAMES[name]}: tiers get {shares}; Jain's index of equal clients {policy.jain:.3f}.")
    ideal = ", ".join(_percent(share) for share in figures.ideal_shares)
    return " ".join([*words, f"By weight they would get {ideal}."])


def _ticks(most: float, about: int) -> Iterator[float]:
    """From 0 in steps of 1, 2 or 5 times a power of ten, about so many."""
    step = 10.0 ** math.floor(math.log10(most / about))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= about)
    for number in range(int(most / step) + 1):
        yield number * step


def _colour(tier: int) -> str:
    return f"var(--t{tier})"


def _percent(part: float) -> str:
    if 0 < part < 0.001:
        return "under 0.1 %"
    return f"{part * 100:.{1 if part < 0.1 else 0}f} %"
