"""`manage.py demo`: everything on this machine, up to a first job at the terminal; or a load with `--once`."""

import argparse
import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from llmjobs.checks import require_supported_server
from llmjobs.demo import load, seeding, showing, trace
from llmjobs.demo.client import Api, ApiError
from llmjobs.demo.processes import ProcessEnded, end_with_parent
from llmjobs.demo.showing import Screen
from llmjobs.demo.site import AlreadyRunning, Site, data_dir, only_demo

PAID_MODEL = "gpt-4.1-mini"
LOOK_EVERY_S = 0.2
FIRST_PROMPT = "Say hello to somebody who has just started you. [[tokens=40]]"


class Command(BaseCommand):
    help = "Run Postgres, a provider simulator, the web server and a worker; stream a first job; serve until Ctrl-C."
    requires_system_checks: list[str] = []  # `migrate`, which follows, does them

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--once", action="store_true", help="run a load, print a summary, exit 0 if every job completed")
        add("--trace", type=Path, metavar="FILE", help="with --once: replay the calls of this CSV file instead")
        add("--speed", type=_number(0.01, 1_000), default=1.0, metavar="K", help="of the replay: K times as fast (1)")
        add("--limit", type=_whole(1, 1_000_000), metavar="N", help="of the replay: the first N calls (all)")
        add("--port", type=_whole(0, 65_535), default=8000, help="of the web server; if it is taken, the next (8000)")
        add("--workers", type=_whole(0, 64), default=1, metavar="N", help="worker processes (1)")
        providers = (seeding.SIMULATOR, seeding.OPENAI)
        add("--provider", choices=providers, default=seeding.SIMULATOR, help="openai is paid for (simulator)")
        add("--model", default=PAID_MODEL, help=f"with --provider openai ({PAID_MODEL})")
        add("--json", action="store_true", help="when ready, print one line of JSON; all else goes to stderr")

    def handle(self, **options: Any) -> None:
        end_with_parent()
        screen = Screen(sys.stderr if options["json"] else sys.stdout)
        try:
            self._run(screen, options)
        except KeyboardInterrupt:
            if options["once"]:
                raise CommandError("Stopped before the load had ended.", returncode=130) from None
            screen.say("\nStopped.")
        except (AlreadyRunning, ProcessEnded, ApiError, seeding.NotOurs, trace.TraceError) as error:
            raise CommandError(str(error)) from None
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"{type(error).__name__}: {error}") from None

    def _run(self, screen: Screen, options: dict[str, Any]) -> None:
        arrivals = _arrivals(options)
        is_paid = options["provider"] == seeding.OPENAI
        folder = data_dir() / "demo"
        require_supported_server()
        with only_demo(folder), _site(folder, options) as site:
            site.start()
            _migrate(screen)
            found = seeding.seed(folder / "secrets.json")
            seeding.seed_models(site.simulator_url)
            if is_paid:
                seeding.seed_openai(options["model"])
            connection.close()
            site.start_workers()
            api = Api(site.url, next(iter(found.api_keys.values())))
            site.wait_for_web(api)
            self._greet(screen, site, found, options)
            if options["once"]:
                site.wait_for_workers()
                if not showing.load(screen, site.url, found, arrivals, _title(options)):
                    raise CommandError("Not every job completed.")
                return
            if options["workers"] and not options["json"]:
                showing.first_job(screen, api, _first_job(options), f"demo-first-{secrets.token_hex(8)}")
            api.close()
            screen.heading("Serving; Ctrl-C stops.")
            _serve(screen, site)

    def _greet(self, screen: Screen, site: Site, found: seeding.Secrets, options: dict[str, Any]) -> None:
        if options["port"] not in (0, site.port):
            screen.say(f"Port {options['port']} is taken: this is {site.port}.")
        if options["json"]:
            site.wait_for_workers()
            ready = {
                "url": site.url,
                "simulator_url": site.control_url,  # serves all that its other port does, and while that one refuses
                "admin": {"user": seeding.ADMIN, "password": found.password},
                "api_keys": dict(found.api_keys),
            }
            self.stdout.write(json.dumps(ready))
            self.stdout.flush()
            return
        showing.welcome(
            screen, url=site.url, simulator_url=site.simulator_url, postgres=_postgres(), workers=options["workers"],
            secrets=found, model=None if options["once"] else _model(options),
        )  # fmt: skip


@contextmanager
def _site(folder: Path, options: dict[str, Any]) -> Iterator[Site]:
    site = Site(
        folder,
        port=options["port"],
        workers=options["workers"],
        speed=options["speed"],
        is_paid=options["provider"] == seeding.OPENAI,
    )
    try:
        yield site
    finally:
        site.stop()


def _migrate(screen: Screen) -> None:
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        screen.say("Making the tables …")
        call_command("migrate", verbosity=0, interactive=False)


def _serve(screen: Screen, site: Site) -> None:
    while True:
        for line in site.mend():
            screen.say(showing.INDENT + line)
        time.sleep(LOOK_EVERY_S)


def _arrivals(options: dict[str, Any]) -> list[load.Arrival]:
    """What `--once` will submit. Raises CommandError, TraceError, OSError."""
    is_paid = options["provider"] == seeding.OPENAI
    if is_paid and not os.environ.get("OPENAI_API_KEY"):
        raise CommandError("--provider openai: expected OPENAI_API_KEY to be set")
    if options["trace"] is None:
        if options["limit"] is not None or options["speed"] != 1:
            raise CommandError("--speed and --limit: expected --trace with them")
        return load.plain(options["model"]) if is_paid else load.mixed()
    if not options["once"]:
        raise CommandError("--trace: expected --once with it")
    if is_paid:
        raise CommandError("--trace: expected the simulator, got --provider openai, which would be paid for")
    return load.replay(trace.read(options["trace"], options["limit"]), options["speed"])


def _title(options: dict[str, Any]) -> str:
    if options["trace"] is None:
        return "A load over three tiers"
    return f"A replay of {options['trace'].name}, {options['speed']:g} times as fast"


def _model(options: dict[str, Any]) -> str:
    return str(options["model"]) if options["provider"] == seeding.OPENAI else "sim-small"


def _first_job(options: dict[str, Any]) -> dict[str, Any]:
    if options["provider"] == seeding.OPENAI:
        return load.plain(options["model"])[0].job
    return {"model": "sim-small", "messages": [{"role": "user", "content": FIRST_PROMPT}]}


def _postgres() -> str:
    is_embedded = os.environ.get("DATABASE_URL") == os.environ.get("EMBEDDED_POSTGRES_URL")
    settings = connection.settings_dict
    return f"embedded, in {data_dir()}" if is_embedded else f"{settings['NAME']} at {settings['HOST'] or 'localhost'}"


def _whole(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
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
