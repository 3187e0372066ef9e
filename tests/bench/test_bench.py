"""The benchmark runs, says what it found, and takes away what it made."""

import os
import subprocess
import sys

import psycopg
import pytest

from tests.bench.ground import PREFIX, ROOT
from tests.bench.report import Table, percentile


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """On the server of this test run."""
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_each_part_prints_its_figures_and_the_database_is_gone_afterwards() -> None:
    done = bench("--quick", "--only", "memory,statements")
    assert done.returncode == 0, done.stderr
    assert "the most it had (VmHWM)" in done.stdout
    assert "claim at 10,000 queued" in done.stdout
    with psycopg.connect(os.environ["DATABASE_URL"]) as server:
        left = server.execute("select datname from pg_database where starts_with(datname, %s)", [PREFIX]).fetchall()
    assert left == []


def test_a_part_that_is_not_known_is_refused_by_name() -> None:
    done = bench("--only", "speed")
    assert done.returncode == 1
    assert "expected parts among throughput, latency, memory, statements, got speed" in done.stderr


@pytest.mark.parametrize(("value", "word"), [(0.9, "ok"), (0.89, "MISSED")])
def test_a_figure_is_held_against_its_target(value: float, word: str) -> None:
    table = Table("t")
    table.at_least("ratio", value, 0.9)
    assert next(line for line in table.lines() if "ratio" in line).endswith(word)


def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([7.0], 99) == 7
