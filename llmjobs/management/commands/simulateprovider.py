"""`manage.py simulateprovider`: an OpenAI-compatible provider on loopback, for demo, tests and benchmarks.
Needs no database."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmjobs.providers.simulator import command


class Command(BaseCommand):
    help = "Serve an OpenAI-compatible provider on loopback, with limits and faults on demand."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        command.add_arguments(parser)

    def handle(self, **options: Any) -> None:
        try:
            command.run(options)
        except (ValueError, OSError) as error:
            raise CommandError(str(error)) from error
