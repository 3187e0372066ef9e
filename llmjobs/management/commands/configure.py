"""`manage.py configure FILE.toml`: tiers, providers, models and clients as a file says, all of it or nothing.

Shows what changes, a line each, and what is wrong with the file, all of it at once. Keys that the file does not say
stay as they are. Exits 0; with --check 1 if anything would change; 2 if the file can't be brought about.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError

from llmjobs.checks import require_supported_server
from llmjobs.configuration.changing import CHANGE, CREATE, KEEP, REMOVE, Change, Refused, bring_about
from llmjobs.configuration.reading import Configuration, Unreadable, parsed

DONE = {CREATE: "created", CHANGE: "changed", REMOVE: "removed"}
BROKEN = 2


class Command(BaseCommand):
    help = "Bring tiers, providers, models and clients to what a TOML file says, and show what that changes."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE.toml")
        parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if anything would change")
        parser.add_argument(
            "--prune", action="store_true", help="remove what the file does not name and nothing refers to"
        )

    def handle(self, *, file: Path, check: bool, prune: bool, **options: Any) -> None:
        require_supported_server()
        asked = _read(file)
        try:
            changes = bring_about(asked, is_pruned=prune, is_look=check)
        except Refused as refused:
            raise CommandError(
                "\n".join([f"{file}: nothing was changed.", *refused.problems]), returncode=BROKEN
            ) from None
        except IntegrityError as error:
            raise CommandError(
                f"{file}: nothing was changed, since somebody else changed the same meanwhile; run it again ({error})",
                returncode=BROKEN,
            ) from None
        for change in changes:
            self._show(change)
        self.stdout.write(_summary(changes, is_look=check))
        if check and any(change.verb != KEEP for change in changes):
            sys.exit(1)

    def _show(self, change: Change) -> None:
        paint = {CREATE: self.style.SUCCESS, CHANGE: self.style.WARNING, REMOVE: self.style.ERROR}
        line = f"{change.verb} {change.table} {change.name}" + (f" ({change.note})" if change.note else "")
        self.stdout.write(paint[change.verb](line) if change.verb in paint else line)
        for key, before, after in change.fields:
            self.stdout.write(f"  {key}: {after}" if change.verb == CREATE else f"  {key}: {before} -> {after}")


def _read(file: Path) -> Configuration:
    try:
        return parsed(file.read_bytes())
    except Unreadable as error:
        raise CommandError(f"{file}, {error}", returncode=BROKEN) from None
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}", returncode=BROKEN) from None


def _summary(changes: list[Change], *, is_look: bool) -> str:
    counts = Counter(change.verb for change in changes if change.verb != KEEP)
    if not counts:
        return "Nothing would change." if is_look else "Nothing changes."
    told = ", ".join(f"{counts[verb]} {done}" for verb, done in DONE.items() if counts[verb])
    return f"{told[0].upper()}{told[1:]}." if not is_look else f"Would be {told}."
