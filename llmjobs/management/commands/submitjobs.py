"""`manage.py submitjobs FILE`: a job a line (JSON Lines, the fields of POST /api/jobs), and with --out their results.

Begun again after any interruption, also a kill, it goes on where it was: a journal beside the file (or --state) says
which line is which job. Exits 0: all is done; 1: lines were refused, or jobs did not complete; 2: it could not begin or
go on; 130: interrupted.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from llmjobs import job_lines
from llmjobs.checks import require_supported_server
from llmjobs.job_files.appended import FileRefused
from llmjobs.job_files.journal import Journal
from llmjobs.job_files.results import Results
from llmjobs.job_files.running import Run
from llmjobs.job_files.showing import Bar
from llmjobs.models import Client
from llmjobs.states import Priority

FAILED, STOPPED, INTERRUPTED = 1, 2, 130
LISTED_MAX = 20
NAMED_MAX = 20
PIECE_BYTES = 1024 * 1024


class Command(BaseCommand):
    help = "Submit the jobs of a file, a line each; can be interrupted at any point and begun again."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add(
            "file", metavar="FILE", help="JSON Lines: a line is a job's fields, as of POST /api/jobs; -: standard input"
        )
        add("--client", metavar="NAME", help="whose jobs they are; by default the only client that there is")
        add("--wait", action="store_true", help="until all jobs have ended")
        add(
            "--out",
            type=Path,
            metavar="FILE",
            help="write each job's result there when it ends, a line each; waits too",
        )
        add("--model", help="of lines that name none")
        add("--priority", choices=[priority.word for priority in Priority], help="of lines that name none")
        add("--state", type=Path, metavar="FILE", help="the journal; by default FILE.state, beside --out or the file")

    def handle(self, *, file: str, client: str | None, wait: bool, out: Path | None, **options: Any) -> None:
        require_supported_server()
        state = options["state"] or _state(file, out)
        before = signal.signal(signal.SIGTERM, _interrupt)
        bar = Bar(sys.stderr)
        try:
            with ExitStack() as stack:
                lines = stack.enter_context(_opened(file))
                owner = _client(client)
                journal = stack.enter_context(closing(Journal(state, client=owner.name, now=_now())))
                results = stack.enter_context(closing(Results(out, journal.lines))) if out else None
                run = Run(owner, journal, results, waits=wait or out is not None, bar=bar)
                defaults = {name: options[name] for name in ("model", "priority") if options[name] is not None}
                run.submit(job_lines.read(lines, defaults), _count(file))
                run.wait()
                bar.end()
                self._say(run, results)
        except FileRefused as error:
            bar.end()
            raise CommandError(str(error), returncode=STOPPED) from None
        except OSError as error:
            bar.end()
            raise CommandError(f"{error.filename or file}: {error.strerror or error}", returncode=STOPPED) from None
        except DatabaseError as error:
            bar.end()
            said = str(error).strip().partition("\n")[0]
            raise CommandError(f"The database: {said}. {_how_to_go_on(state)}", returncode=STOPPED) from None
        except KeyboardInterrupt:
            bar.end()
            self.stderr.write(f"Interrupted. {_how_to_go_on(state)}")
            sys.exit(INTERRUPTED)
        finally:
            signal.signal(signal.SIGTERM, before)
        if run.failed:
            sys.exit(FAILED)

    def _say(self, run: Run, results: Results | None) -> None:
        parts = [f"{run.submitted:,} submitted", f"{run.before:,} were before", f"{run.refused:,} refused"]
        self.stdout.write("lines: " + ", ".join(parts))
        ended = ", ".join(f"{count:,} {state}" for state, count in sorted(run.ended.items()))
        if ended:
            self.stdout.write(f"jobs:  {ended}")
        if results:
            self.stdout.write(f"results: {len(results.done):,}")
        for number in sorted(run.failed)[:LISTED_MAX]:
            self.stderr.write(f"line {number}: {run.failed[number]}")
        if (more := len(run.failed) - LISTED_MAX) > 0:
            self.stderr.write(f"and {more:,} more lines")


def _now() -> datetime:
    """The database's, which says when a job was made."""
    with connection.cursor() as cursor:
        cursor.execute("select statement_timestamp()")
        found: datetime = cursor.fetchone()[0]
    return found


def _state(file: str, out: Path | None) -> Path:
    if out is None and file == "-":
        raise CommandError(
            "Standard input has no name to keep a journal by: expected --out or --state, got neither",
            returncode=STOPPED,
        )
    beside = out or Path(file)
    return beside.with_name(f"{beside.name}.state")


def _client(name: str | None) -> Client:
    clients = Client.objects.select_related("tier").order_by("name")
    found = clients.filter(name=name).first() if name is not None else None
    if found is None:
        names = list(clients.values_list("name", flat=True)[:NAMED_MAX])
        if name is None and len(names) == 1:
            return clients[0]
        known = ", ".join(names) or "none: manage.py createclient makes one"
        raise CommandError(
            f"--client: expected one of the clients ({known}), got {name or 'none'!r}", returncode=STOPPED
        )
    return found


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as opened:
        yield opened


def _count(file: str) -> int | None:
    """Lines, for the bar; None: not known before they are read."""
    if file == "-" or not Path(file).is_file():
        return None
    with Path(file).open("rb") as opened:
        return sum(piece.count(b"\n") for piece in iter(lambda: opened.read(PIECE_BYTES), b"")) + 1


def _how_to_go_on(state: Path) -> str:
    return f"The same command again goes on where this stopped, and submits nothing twice ({state} knows)."


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
