"""`manage.py runworker`: claims and runs jobs until it is stopped."""

import argparse
import asyncio
import ctypes
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from llmjobs.conf import conf
from llmjobs.database import DATABASE_GONE
from llmjobs.models import Model, Tier

PR_SET_PDEATHSIG = 1


class Command(BaseCommand):
    help = "Claims and runs jobs. SIGTERM or Ctrl-C drains; a second one releases what runs at once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--concurrency", type=whole(1, 10_000), default=64, metavar="N", help="calls at once (64)")
        parser.add_argument(
            "--until-empty", action="store_true", help="exit 0 when nothing is queued, running or waiting"
        )
        parser.add_argument("--pools", type=names, default=(), metavar="A,B", help="serve these models only")
        parser.add_argument("--tiers", type=names, default=(), metavar="A,B", help="serve these tiers only")
        parser.add_argument(
            "--short-share", type=share, default=0.2, metavar="F", help="slots kept for short jobs (0.2)"
        )
        parser.add_argument("--max-jobs", type=whole(1, 2**31), default=None, metavar="N", help="stop after N jobs")
        parser.add_argument(
            "--drain-timeout",
            type=seconds,
            default=None,
            metavar="S",
            help="default: the longest timeout_s that runs",
        )
        parser.add_argument(
            "--die-with-parent", action="store_true", help="drain when the process that started it ends"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["die_with_parent"]:
            die_with_parent()
        try:
            options["pools"] = ids_of("--pools", options["pools"], Model)
            options["tiers"] = ids_of("--tiers", options["tiers"], Tier)
            report = asyncio.run(self._run(options))
        except (*DATABASE_GONE, OperationalError) as error:
            raise CommandError(f"Postgres can't be reached: {str(error).strip().splitlines()[0]}") from None
        ended = ", ".join(f"{count} {state}" for state, count in sorted(report.ended.items())) or "none"
        self.stdout.write(f"claimed {report.claimed}; ended: {ended}; lost leases: {report.lease_lost}")

    async def _run(self, options: dict[str, Any]) -> Any:
        from llmjobs.worker import Options, Worker  # imports the SDK: 52 MB that no other command needs

        worker = Worker(
            Options(
                concurrency=options["concurrency"],
                until_empty=options["until_empty"],
                pools=options["pools"],
                tiers=options["tiers"],
                short_share=options["short_share"],
                max_jobs=options["max_jobs"],
                drain_timeout_s=options["drain_timeout"]
                if options["drain_timeout"] is not None
                else conf.drain_timeout_s or None,
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        return await worker.run()


def die_with_parent() -> None:
    """Linux: SIGTERM when the parent ends, so that a demo that was killed leaves nobody behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def ids_of(option: str, given: tuple[str, ...], table: type[Model] | type[Tier]) -> dict[str, int]:
    if not given:
        return {}
    known = dict(table.objects.values_list("name", "id"))
    if unknown := [name for name in given if name not in known]:
        raise CommandError(
            f"{option}: expected names among {', '.join(sorted(known)) or 'none'}; got {', '.join(unknown)}"
        )
    return {name: known[name] for name in given}


def names(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"expected names, separated by commas, got {text!r}")
    return found


def whole(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return parse


def share(text: str) -> float:
    return bounded(text, 0, 1)


def seconds(text: str) -> float:
    return bounded(text, 0, 7 * 86_400)


def bounded(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected a number from {least:g} to {most:g}, got {text!r}")
    return value
