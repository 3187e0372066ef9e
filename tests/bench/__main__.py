"""`python -m tests.bench`: run the parts, print their tables. Exit 1 with --strict if a target was missed."""

import argparse
import os
import platform
import sys
import time

import django

from tests.bench.report import Table, done_with_progress


def main() -> None:
    options = _options()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    tables = _run(options)
    is_met = all(figure.is_met is not False for table in tables for figure in table.figures)
    sys.exit(0 if is_met or not options.strict else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds: half a minute or so")
    parser.add_argument("--only", default="", metavar="PART,…", help="throughput, latency, memory, statements")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> list[Table]:
    from tests.bench import ground, latency, memory, statements, throughput

    parts = {
        "throughput": throughput.measure,
        "latency": latency.measure,
        "memory": memory.measure,
        "statements": statements.measure,  # last: it leaves a backlog
    }
    wanted = [name.strip() for name in options.only.split(",") if name.strip()] or list(parts)
    if unknown := [name for name in wanted if name not in parts]:
        sys.exit(f"--only: expected parts among {', '.join(parts)}, got {', '.join(unknown)}")
    began_at, tables = time.monotonic(), []
    with ground.prepared() as site:
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
        for name, measure in parts.items():
            if name in wanted:
                tables.append(measure(site, is_quick=options.quick))
                done_with_progress()
                print("\n".join(tables[-1].lines()), flush=True)
    print(f"\nin {time.monotonic() - began_at:.0f} s")
    return tables


if __name__ == "__main__":
    main()
