"""The benchmark runs, says what it found, and takes away what it made."""

import os
import subprocess
import sys

import psycopg
import pytest

from tests.bench import peers
from tests.bench.__main__ import PARTS
from tests.bench.databases import PREFIX
from tests.bench.ground import ROOT
from tests.bench.report import Table, percentile


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """On the server of this test run."""
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


# A figure of each part that the suite runs; the network's parts have tests of what they measure elsewhere.
SAID = {
    "memory": "the most it had (VmHWM)",
    "noop": "ours, whole life, jobs/s",
    "submits": "one, p50",
    "posts": "POST /api/jobs / the bare view",
    "viewers": "token to viewer, p95",
    "fifo": "claim of 100: fair / FIFO",
    "scale": "its largest client paused",
    "asking": "statistics of all",
    "shares": "the gap when settle corrects nothing",
    "wakeups": "jobs that stayed behind",
    "operations": "from the click to the end",
    "statements": "claim at 10,000 queued",
}


def databases_left() -> list[tuple[str]]:
    with psycopg.connect(os.environ["DATABASE_URL"]) as server:
        rows = server.execute("select datname from pg_database where starts_with(datname, %s)", [PREFIX])
        return rows.fetchall()


@pytest.mark.parametrize(
    "parts", ["memory,noop,submits,fifo,asking,statements", "posts,viewers", "scale,shares,wakeups,operations"]
)
def test_each_part_prints_its_figures_and_the_databases_are_gone_afterwards(parts: str) -> None:
    done = bench("--quick", "--only", parts)
    assert done.returncode == 0, done.stderr
    for part in parts.split(","):
        assert SAID[part] in done.stdout, part
    if "wakeups" in parts:
        assert "jobs that stayed behind" in done.stdout and "MISSED" not in done.stdout.partition("processes submit")[2]
    assert databases_left() == []


def test_a_peer_that_is_not_there_is_left_out_by_name(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(peers, "STAMP", tmp_path / "none")
    with pytest.raises(peers.LeftOut, match="not installed"):
        peers.python(may_install=False)


def test_a_part_that_is_not_known_is_refused_by_name() -> None:
    done = bench("--only", "speed")
    assert done.returncode == 1
    assert f"expected parts among {', '.join(PARTS)}, got speed" in done.stderr


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
