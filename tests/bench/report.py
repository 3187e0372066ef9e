"""Figures, what they should be, and the tables that show both."""

import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """`target` is in words; `is_met` is None where there is none."""

    name: str
    value: str
    target: str = ""
    is_met: bool | None = None


@dataclass(slots=True)
class Table:
    title: str
    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """A figure for information."""
        self.figures.append(Figure(name, value))

    def at_least(self, name: str, value: float, least: float, unit: str = "", digits: int = 2) -> None:
        self.figures.append(Figure(name, f"{value:,.{digits}f}{unit}", f"at least {least:g}{unit}", value >= least))

    def at_most(self, name: str, value: float, most: float, unit: str, digits: int = 1) -> None:
        self.figures.append(Figure(name, f"{value:.{digits}f} {unit}", f"at most {most:g} {unit}", value <= most))

    def lines(self) -> Iterator[str]:
        yield ""
        yield self.title
        widths = [max([len(cell) for cell in column]) for column in zip(*map(_cells, self.figures), strict=True)]
        for figure in self.figures:
            name, value, verdict = _cells(figure)
            yield f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {verdict}".rstrip()


def _cells(figure: Figure) -> tuple[str, str, str]:
    word = {True: "ok", False: "MISSED", None: ""}[figure.is_met]
    return figure.name, figure.value, f"{figure.target:<18}{word}" if figure.target else ""


def progress(text: str) -> None:
    """One line, drawn over itself at a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
    else:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def done_with_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[2K")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of `values` do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def rounds(values: Iterable[float], digits: int = 0) -> str:
    """The rounds one by one, behind their median."""
    shown = [f"{value:,.{digits}f}" for value in values]
    return f"({', '.join(shown)})"
