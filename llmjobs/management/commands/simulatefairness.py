"""`manage.py simulatefairness`: the fair order next to first in, first out, and to round robin. Needs no database."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError

from llmjobs.demo import trace
from llmjobs.simulation import picture, report
from llmjobs.simulation.measures import calls_run, simulated
from llmjobs.simulation.workload import Workload, by_chance, of_trace

CALLS = 5_000
BAR_AFTER_S, BAR_EVERY_S, BAR_CHARS = 1.0, 0.1, 32


class Command(BaseCommand):
    help = (
        "Simulate a load under three rules of order, and print shares, gaps and waits. The same seed, the same figures."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--seed", type=_whole(0, 2**32), default=1, metavar="N", help="of all chance (1)")
        add("--clients", type=_whole(1, 1_000), default=24, metavar="N", help="how many there are (24)")
        add("--skew", type=_number(0, 10), default=1.1, metavar="S", help="the k-th asks 1/k^S as often (1.1)")
        add("--calls", type=_whole(1, 1_000_000), metavar="N", help=f"how many ({CALLS:,}, or all of the trace)")
        add("--slots", type=_whole(1, 10_000), default=16, metavar="N", help="calls at once (16)")
        add(
            "--load",
            type=_number(0.01, 100),
            default=0.95,
            metavar="F",
            help="what is asked for, by what can be done (0.95)",
        )
        add("--weights", type=_weights, default=(16.0, 4.0, 1.0), metavar="W,W", help="a tier each (16,4,1)")
        add("--trace", type=Path, metavar="FILE", help=f"times and sizes of this CSV file: {','.join(trace.COLUMNS)}")
        add("--svg", type=Path, metavar="FILE", help="draw it, too")
        add("--json", action="store_true", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        if options["svg"] is not None and (options["svg"].is_dir() or not options["svg"].parent.is_dir()):
            raise CommandError(f"--svg: expected a file in a folder that exists, got {options['svg']}")
        try:
            workload = _workload(options)
            with _Bar(sys.stderr, calls_run(workload)) as bar:
                figures = simulated(workload, bar.add)
            if options["svg"] is not None:
                options["svg"].write_text(picture.svg(figures, _title(options, workload)), encoding="utf-8")
        except trace.TraceError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from None
        if options["json"]:
            self.stdout.write(json.dumps({"seed": options["seed"]} | report.as_json(figures)))
            return
        self.stdout.write(_title(options, workload))
        self.stdout.write("")
        for line in report.lines(figures):
            self.stdout.write(line)
        if options["svg"] is not None:
            self.stdout.write(f"\nDrawn: {options['svg']}")


class _Bar:
    """How far the simulation is, in place, on a terminal, and only where it takes longer than a second."""

    def __init__(self, out: TextIO, total: int) -> None:
        self._out, self._total, self._ended = out, total, 0.0
        self._began_at = self._drawn_at = time.monotonic()
        self._is_drawn = False

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_drawn:
            self._out.write("\r\x1b[2K")
            self._out.flush()

    def add(self, ended: float) -> None:
        self._ended += ended
        now = time.monotonic()
        if not self._out.isatty() or now - self._began_at < BAR_AFTER_S or now - self._drawn_at < BAR_EVERY_S:
            return
        part = min(1.0, self._ended / self._total)
        full = int(part * BAR_CHARS)
        self._out.write(f"\r\x1b[2K{'█' * full}{'░' * (BAR_CHARS - full)} {part:4.0%}")
        self._out.flush()
        self._drawn_at, self._is_drawn = now, True


def _workload(options: dict[str, Any]) -> Workload:
    """Raises TraceError, OSError."""
    names = ("seed", "clients", "skew", "slots", "load", "weights")
    asked = {name: options[name] for name in names}
    if options["trace"] is None:
        return by_chance(calls=options["calls"] or CALLS, **asked)
    return of_trace(trace.read(options["trace"], options["calls"]), **asked)


def _title(options: dict[str, Any], workload: Workload) -> str:
    source = f"of {options['trace'].name}, " if options["trace"] is not None else ""
    return (
        f"{len(workload.calls):,} calls {source}by {len(workload.clients)} clients (skew {options['skew']:g}), "
        f"{workload.slots} slots, load {options['load']:g}, seed {options['seed']}"
    )


def _weights(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not 1 <= len(found) <= picture.TIERS_MAX or not all(0.001 <= weight <= 1_000_000 for weight in found):
        raise argparse.ArgumentTypeError(
            f"expected 1 to {picture.TIERS_MAX} numbers from 0.001 to 1000000, separated by commas, got {text!r}"
        )
    return found


def _whole(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return parse


def _number(least: float, most: float) -> Any:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")
        return value

    return parse
