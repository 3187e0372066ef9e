"""The simulator's command line: its options, and the process that serves until it is told to stop.

Owns what `manage.py simulateprovider` and `python -m llmjobs.providers.simulator` have in common; neither
needs a database.
The first line on stdout is `listening on <url>`, the second `control on <url>`: a program that starts it
waits for the first.
"""

import argparse
import asyncio
import contextlib
import ctypes
import errno
import gc
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmjobs.providers.simulator.control import DEFAULT, BadControl, Behaviour, changed
from llmjobs.providers.simulator.limits import WINDOWS
from llmjobs.providers.simulator.server import Simulator

PORT_DEFAULT = 9000
PORT_MAX = 65_535
PARENT_POLL_S = 0.5
_PR_SET_PDEATHSIG = 1
_SETTINGS = (
    "rpm",
    "tpm",
    "window",
    "count_max_tokens",
    "ttft_ms",
    "tokens_per_s",
    "fault",
    "fail_rate",
    "seed",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="a loopback address; no other is taken")
    add("--port", type=int, default=PORT_DEFAULT, help=f"0: any free one (default: {PORT_DEFAULT})")
    add("--rpm", type=int, help="requests a minute for each API key and model (default: no limit)")
    add("--tpm", type=int, help="tokens a minute for each API key and model (default: no limit)")
    add(
        "--window",
        choices=WINDOWS,
        default=DEFAULT.window,
        help="how the limits are counted (default: sliding)",
    )
    add(
        "--count-max-tokens",
        action="store_true",
        help="count a call's requested maximum instead of its actual output",
    )
    add("--ttft-ms", type=float, default=DEFAULT.ttft_ms, help="time to first token (default: 0)")
    add("--tokens-per-s", type=float, default=DEFAULT.tokens_per_s, help="0: as fast as can be (default)")
    add(
        "--fail-rate",
        type=float,
        help="the share of calls that fail, from 0 to 1: by --fault, else by a mix of faults",
    )
    add("--fault", help="name[:times[:value]], for every call or for the share of --fail-rate")
    add("--seed", type=int, default=DEFAULT.seed, help="of the dice that --fail-rate throws (default: 0)")
    add(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="keep the ledger in this file too (JSON Lines), and begin with what it holds",
    )
    add("--die-with-parent", action="store_true", help="stop when the process that started this one is gone")


def run(options: Mapping[str, Any]) -> None:
    """Serve until SIGTERM, SIGINT or, if so wanted, the parent's end.

    Raises ValueError or OSError if it can't start.
    """
    try:
        behaviour = changed(Behaviour(), {name: options[name] for name in _SETTINGS if options[name] is not None})
    except BadControl as bad:
        raise ValueError(f"--{str(bad).replace('_', '-', bad.field.count('_'))}") from None
    if not 0 <= options["port"] <= PORT_MAX:
        raise ValueError(f"--port: expected a whole number from 0 to {PORT_MAX}, got {options['port']}")
    simulator = Simulator(behaviour, host=options["host"], port=options["port"], ledger_path=options["ledger"])
    _raise_file_limit()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(simulator, die_with_parent=options["die_with_parent"]))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is in use by another program" if error.errno == errno.EADDRINUSE else "is not for this user"
        raise ValueError(
            f"--port: expected one that is free, or 0 for any, got {options['port']}, which {why}"
        ) from None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m llmjobs.providers.simulator", description="An OpenAI-compatible provider."
    )
    add_arguments(parser)
    try:
        run(vars(parser.parse_args()))
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")


async def _serve(simulator: Simulator, *, die_with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if die_with_parent:
        _watch_parent(stopped)
    async with simulator:
        # What was imported lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        sys.stdout.write(f"listening on {simulator.url}\ncontrol on {simulator.control_url}\n")
        sys.stdout.flush()
        await stopped.wait()


def _watch_parent(stopped: asyncio.Event) -> None:
    """Stop when the parent ends: on Linux the kernel sends SIGTERM (already when the *thread* that started
    this process ends); elsewhere a look from time to time finds another parent."""
    parent = os.getppid()
    loop = asyncio.get_running_loop()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def look() -> None:
        if os.getppid() == parent:
            loop.call_later(PARENT_POLL_S, look)
        else:
            stopped.set()

    look()


def _raise_file_limit() -> None:
    """A connection is a file descriptor: take as many as the hard limit allows."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
