"""`manage.py prunejobs`: finished jobs past their age go, in bounded batches, beside everything that runs.

Without options the ages are those of the settings, as for the workers' own duty. Can be stopped at any time: each batch
has committed. Exits 0; 130 if it was interrupted.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from psycopg import AsyncConnection

from llmjobs import retention
from llmjobs.checks import require_supported_server
from llmjobs.conf import DAY_S, conf
from llmjobs.database import connect_async
from llmjobs.retention import Ages, Rest, Walk

DAYS_MAX = 36_500  # as of the settings
UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
BAR_CHARS = 30
INTERRUPTED = 130


class Command(BaseCommand):
    help = "Remove finished jobs that are old, and the bodies (requests, outputs, events) of those that are less old."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--older-than",
            type=duration_s,
            metavar="AGE",
            help="remove jobs that finished so long ago, like 30d, 12h or 90m; by default LLMJOBS_KEEP_JOBS_DAYS",
        )
        parser.add_argument(
            "--bodies-older-than",
            type=duration_s,
            metavar="AGE",
            help="remove requests, outputs and events of jobs that finished so long ago; by default "
            "LLMJOBS_KEEP_BODIES_DAYS",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")

    def handle(
        self, *, older_than: float | None, bodies_older_than: float | None, dry_run: bool, **options: Any
    ) -> None:
        require_supported_server()
        kept = retention.configured()
        ages = Ages(
            jobs_s=kept.jobs_s if older_than is None else older_than,
            bodies_s=kept.bodies_s if bodies_older_than is None else bodies_older_than,
        )
        if ages.jobs_s is None and ages.bodies_s is None:
            raise CommandError("Jobs are kept for ever (LLMJOBS_KEEP_JOBS_DAYS is 0): expected --older-than, got none")
        try:
            asyncio.run(_say_what_would_go(self.stdout, ages) if dry_run else _prune(self.stdout, ages))
        except KeyboardInterrupt:
            self.stderr.write("Interrupted; what was removed so far is gone.")
            sys.exit(INTERRUPTED)


def duration_s(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([dhms])", text.strip())
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a duration like 30d, 12h or 90m, got {text!r}")
    age_s = float(found[1]) * UNITS_S[found[2]]
    if age_s > DAYS_MAX * DAY_S:
        raise argparse.ArgumentTypeError(f"expected at most {DAYS_MAX}d, got {text!r}")
    return age_s


async def _say_what_would_go(out: OutputWrapper, ages: Ages) -> None:
    async with _connected() as conn:
        for of_bodies, age_s in ((False, ages.jobs_s), (True, ages.bodies_s)):
            if age_s is not None:
                found, kept = await retention.total(conn, ages, of_bodies=of_bodies)
                out.write(f"Would remove {_removed(of_bodies, found, age_s)}.{_why_kept(kept)}")


async def _prune(out: OutputWrapper, ages: Ages) -> None:
    async with _connected() as conn:

        @asynccontextmanager
        async def connect() -> AsyncIterator[AsyncConnection[Any]]:
            yield conn

        for walk in retention.walks(ages, from_start=True):
            most, _ = await retention.total(conn, ages, of_bodies=walk.of_bodies)
            bar = Bar(out, most, "bodies" if walk.of_bodies else "jobs")
            await retention.go(walk, connect, bar.show, waits=True)
            bar.end()
            out.write(f"Removed {_removed(walk.of_bodies, walk.removed, walk.age_s)}.{_why_kept(walk.kept)}")
        if ages.jobs_s is not None and any(rest := await retention.remove_rest(conn, ages.jobs_s)):
            out.write(f"Removed {_named(rest)}, of that age too.")


@asynccontextmanager
async def _connected() -> AsyncIterator[AsyncConnection[Any]]:
    conn = await connect_async()
    try:
        yield conn
    finally:
        await conn.close()


def _removed(of_bodies: bool, number: int, age_s: float) -> str:
    jobs = _counted(number, "job")
    return f"{'the bodies of ' if of_bodies else ''}{jobs} that finished more than {_age(age_s)} ago"


def _why_kept(number: int) -> str:
    if not number:
        return ""
    return (
        f"\nKept {_counted(number, 'job')} of that age: the end is still to be told to a webhook or a handler, or the "
        f"Idempotency-Key is younger than {_age(conf.idempotency_keep_s)}."
    )


def _named(rest: Rest) -> str:
    return ", ".join(_counted(number, name.removesuffix("s")) for name, number in rest._asdict().items() if number)


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _age(age_s: float) -> str:
    """In the largest unit of which it is a whole number."""
    unit, length_s = next(((unit, length_s) for unit, length_s in UNITS_S.items() if age_s % length_s == 0), ("s", 1.0))
    return f"{age_s / length_s:g}{unit}"


class Bar:
    """On a terminal a line that grows; elsewhere a line each time that another tenth is done."""

    def __init__(self, out: OutputWrapper, most: int, name: str) -> None:
        self._out, self._most, self._name = out, most, name
        self._is_drawn = out.isatty()
        self._tenths = 0

    def show(self, walk: Walk) -> None:
        share = min(walk.removed / self._most, 1) if self._most else 1.0
        text = f"{walk.removed:,} of {max(self._most, walk.removed):,} {self._name}"
        if self._is_drawn:
            filled = round(share * BAR_CHARS)
            self._out.write(f"\r{'█' * filled}{'░' * (BAR_CHARS - filled)}  {text} ", ending="")
            self._out.flush()
        elif self._tenths < int(share * 10) < 10:
            self._tenths = int(share * 10)
            self._out.write(text)
            self._out.flush()

    def end(self) -> None:
        if self._is_drawn:
            self._out.write("\r\x1b[2K", ending="")
