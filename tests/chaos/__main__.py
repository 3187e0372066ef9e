"""`python -m tests.chaos`: play the scenarios, print the table. Exit 1 when something that must hold does not.

The same seed gives the same jobs and the same order of faults; when processes come to what they do is theirs. The
default leases of 12 s hold in a full run, so that "served again within 20 s" is what users have; with --quick all is
short, and small.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import django

from tests.bench.report import done_with_progress, progress
from tests.chaos.server import Server

if TYPE_CHECKING:
    from tests.chaos.running import Row

ROOT = Path(__file__).resolve().parents[2]
QUICK_SCALE = 0.1
RECOVERY_MAX_S, QUICK_RECOVERY_MAX_S = 20, 90
# Also in a full run: a retry's wait would hide how soon a job is taken back, and webhooks would take minutes.
SHORT = {
    "LLMJOBS_BACKOFF_CAP_S": "2", "LLMJOBS_WEBHOOK_TIMEOUT_S": "2", "LLMJOBS_WEBHOOK_BACKOFF_BASE_S": "0.2",
    "LLMJOBS_WEBHOOK_BACKOFF_CAP_S": "1", "LLMJOBS_WEBHOOK_ALLOW_PRIVATE": "true", "LLMJOBS_DRAIN_TIMEOUT_S": "0",
}  # fmt: skip


def main() -> None:
    options = _options()
    _clean_environment()
    say: Callable[[str], None] = (lambda text: None) if options.json else progress
    with Server(ROOT / ".data") as server:
        os.environ["DATABASE_URL"] = server.url
        django.setup()
        rows = _run(options, server, say)
    done_with_progress()
    broken = [f"{row.name}: {words}" for row in rows for words in row.broken]
    if options.json:
        print(json.dumps({"seed": options.seed, "scenarios": [asdict(row) for row in rows]}))
    else:
        print("\n".join([*_table(rows), *broken]))
    sys.exit(1 if broken else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of jobs and faults (1)")
    parser.add_argument("--jobs", type=int, default=None, help="in all scenarios together, instead of about 20,000")
    parser.add_argument("--only", default="", metavar="NAME,…", help="these scenarios; see the table for names")
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs and faults, leases of 2 s")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of the table")
    return parser.parse_args()


def _clean_environment() -> None:
    """What a developer's shell and `.env` know of settings and providers stays outside, as in a test."""
    for name in list(os.environ):
        if name.startswith(("LLMJOBS_", "OPENAI_", "PYTEST_", "EMBEDDED_")) and name != "LLMJOBS_PG_BIN":
            del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "project.settings", "SECRET_KEY": "chaos", "HTTPS_ONLY": "false", "DEBUG": "false",
        "ADMINS": "", "PYTEST_VERSION": "chaos",
    }  # fmt: skip


def _run(options: argparse.Namespace, server: Server, say: Callable[[str], None]) -> "list[Row]":
    from llmjobs.conf import default
    from llmjobs.testing import SimulatorProcess
    from tests.bench import databases
    from tests.chaos.running import Run
    from tests.chaos.scenarios import FULL, QUICK, Tempo
    from tests.worker_process import FAST

    known = FULL | QUICK
    wanted = [name.strip() for name in options.only.split(",") if name.strip()] or list(FULL)
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"--only: expected scenarios among {', '.join(known)}, got {', '.join(unknown)}")
    all_jobs = sum(known[name].jobs for name in wanted)
    scale = options.jobs / all_jobs if options.jobs else QUICK_SCALE if options.quick else 1
    settings = SHORT | (FAST if options.quick else {})
    lease_s = float(settings.get("LLMJOBS_LEASE_S", default("lease_s")))
    tempo = Tempo(scale, lease_s, QUICK_RECOVERY_MAX_S if options.quick else RECOVERY_MAX_S)
    logs = Path(tempfile.mkdtemp(prefix="llmjobs-chaos-"))
    with databases.prepared(), SimulatorProcess() as simulator:
        run = Run(server, simulator, logs, options.seed, tempo, settings, say)
        rows = [run.play(name, known[name]) for name in wanted]
    if any(row.broken for row in rows):
        print(f"seed {options.seed}; the processes' logs are in {logs}", file=sys.stderr)
    else:
        shutil.rmtree(logs)
    return rows


def _table(rows: "list[Row]") -> Iterator[str]:
    heads = ("scenario", "", "jobs", "faults", "lost", "repeats", "unexplained", "slowest recovery", "s", "")
    cells = [heads]
    for row in rows:
        recovered = f"{row.recovery_s:.1f} s ({row.recovery_of})" if row.recovery_s else "-"
        cells.append((
            row.name, row.title, f"{row.jobs:,}", str(row.faults), str(row.lost), str(row.repeats),
            str(row.unexplained), recovered, f"{row.seconds:.0f}", "BROKEN" if row.broken else "ok",
        ))  # fmt: skip
    total = ("all", "", f"{sum(row.jobs for row in rows):,}", str(sum(row.faults for row in rows)))
    sums = [str(sum(getattr(row, name) for row in rows)) for name in ("lost", "repeats", "unexplained")]
    slowest = f"{max(row.recovery_s for row in rows):.1f} s at most"
    cells.append((*total, *sums, slowest, f"{sum(row.seconds for row in rows):.0f}", ""))
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    for line in cells:
        left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        yield "  ".join([*left, *right]).rstrip()


if __name__ == "__main__":
    main()
