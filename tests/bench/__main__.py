"""`python -m tests.bench`: run the parts, print their tables. Exit 1 with --strict if a target was missed."""

import argparse
import importlib
import os
import platform
import sys
import time

import django

from tests.bench.report import Table, done_with_progress

# Each a module here with `measure(ground, *, is_quick)`. The last leaves a backlog in the ground's own database.
PARTS = (
    "throughput", "latency", "memory", "noop", "limits", "submits", "posts", "bulk", "viewers", "fifo", "scale",
    "asking", "shares", "wakeups", "operations", "console", "statements",
)  # fmt: skip


def main() -> None:
    options = _options()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    tables = _run(options)
    is_met = all(figure.is_met is not False for table in tables for figure in table.figures)
    sys.exit(0 if is_met or not options.strict else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: six minutes or so instead of an hour")
    parser.add_argument("--only", default="", metavar="PART,…", help=", ".join(PARTS))
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> list[Table]:
    from tests.bench import ground

    wanted = [name.strip() for name in options.only.split(",") if name.strip()] or PARTS
    if unknown := [name for name in wanted if name not in PARTS]:
        sys.exit(f"--only: expected parts among {', '.join(PARTS)}, got {', '.join(unknown)}")
    began_at, tables = time.monotonic(), []
    with ground.prepared() as site:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
        for name in PARTS:
            if name in wanted:
                part = importlib.import_module(f"tests.bench.{name}")
                tables.append(part.measure(site, is_quick=options.quick))
                done_with_progress()
                print("\n".join(tables[-1].lines()), flush=True)
    print(f"\nin {time.monotonic() - began_at:.0f} s, load {os.getloadavg()[0]:.1f}")
    return tables


if __name__ == "__main__":
    main()
