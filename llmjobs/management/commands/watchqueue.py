"""`manage.py watchqueue`: looks whether something is wrong, tells operators, and says it here.

    --once    for cron, a systemd timer or a monitoring system: a line each, and the exit code of a monitoring plugin:
              0 nothing is wrong, 1 warnings, 2 something critical, 3 it could not be found out
    without   looks every LLMJOBS_WATCH_EVERY_S until it is stopped, and says what opens and what is over

Workers do the same beside their jobs; this is for where none may be left to do it. Ends with 0 on SIGTERM and Ctrl-C.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, connections
from django.db.models import QuerySet
from psycopg import AsyncConnection, Error

from llmjobs import watch
from llmjobs.checks import server_fault
from llmjobs.conf import conf
from llmjobs.database import connect_async
from llmjobs.incidents import TOLD_AT_ONCE, Teller, open_incidents, text
from llmjobs.models import Incident

OK, WARNING, CRITICAL, UNKNOWN = range(4)
SHOWN_MAX = 100
WORDS = {"warning": "WARNING", "critical": "CRITICAL"}


class Command(BaseCommand):
    help = "Look whether something is wrong with the queue, tell operators of it, and print what is."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="look once; exit 0: nothing wrong, 1: warnings, 2: critical"
        )

    def handle(self, *, once: bool, **options: Any) -> None:
        if once:
            sys.exit(self._look_once())
        signal.signal(signal.SIGTERM, _stop)
        with suppress(KeyboardInterrupt):
            self._go_on()

    def _look_once(self) -> int:
        if fault := server_fault():
            self.stdout.write(f"UNKNOWN: {fault}")
            return UNKNOWN
        try:
            watch.look_here(every_s=0.0)  # another may be looking just now: its answer is as good
            asyncio.run(_tell(Teller(_connected)))
            rows = open_incidents(SHOWN_MAX)
        except (DatabaseError, Error) as error:
            self.stdout.write(f"UNKNOWN: {' '.join(str(error).split())}")
            return UNKNOWN
        for row in rows:
            self.stdout.write(_line(row))
        if not rows:
            self.stdout.write("OK: nothing is wrong.")
            return OK
        return CRITICAL if any(row.level == "critical" for row in rows) else WARNING

    def _go_on(self) -> None:
        shown: dict[int, Incident] = {}
        teller = Teller(_connected)
        while True:
            try:
                watch.look_here()
                asyncio.run(_tell(teller))
                rows = {row.pk: row for row in open_incidents(SHOWN_MAX)}
            except (DatabaseError, Error) as error:
                self.stderr.write(f"UNKNOWN: {' '.join(str(error).split())}")
            else:
                for pk in rows.keys() - shown.keys():
                    self.stdout.write(_line(rows[pk]))
                for row in _over(shown.keys() - rows.keys()):
                    self.stdout.write(f"OK: {text(row)}")
                shown = rows
                self.stdout.flush()
            connections.close_all()  # none is held while nobody looks
            time.sleep(conf.watch_every_s)


def _over(ids: Iterable[int]) -> QuerySet[Incident]:
    found = Incident.objects.filter(pk__in=ids).exclude(closed_at=None)
    return found.select_related("provider", "pool", "tier", "client")


def _line(row: Incident) -> str:
    return f"{WORDS[row.level]}: {text(row)}"


async def _tell(teller: Teller) -> None:
    while await teller.tell() >= TOLD_AT_ONCE:
        pass


@asynccontextmanager
async def _connected() -> AsyncIterator[AsyncConnection[Any]]:
    conn = await connect_async()
    try:
        yield conn
    finally:
        await conn.close()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
