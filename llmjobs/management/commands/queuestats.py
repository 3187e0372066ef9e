"""`manage.py queuestats`: the statistics of `GET /api/stats`, for all clients, at the terminal."""

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.management.base import BaseCommand

from llmjobs.checks import require_supported_server
from llmjobs.stats import queue_stats


class Command(BaseCommand):
    help = "Print how many jobs there are, where they are, and how long they wait."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        require_supported_server()
        stats = queue_stats()
        self.stdout.write(json.dumps(stats) if options["json"] else "\n".join(_lines(stats)))


def _lines(stats: Mapping[str, Any]) -> Iterator[str]:
    """A line a number; what has parts is a heading with its parts under it."""
    for name, value in stats.items():
        if not isinstance(value, Mapping):
            yield f"{name:24}{_shown(value):>12}"
            continue
        yield name
        for part, number in value.items():
            yield f"  {part:22}{_shown(number):>12}"


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:,}"
