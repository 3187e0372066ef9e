"""A short seeded run of `make chaos`, as it is: real processes, a Postgres of its own, one of each fault."""

import json
import os
import subprocess
import sys

from tests.live_process import ROOT

SEED = 5
FAULTS = 6


def test_one_of_each_fault_loses_nothing_and_repeats_nothing_without_a_cause():
    command = [sys.executable, "-m", "tests.chaos", "--quick", "--only", "medley", "--seed", str(SEED), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode in (0, 1), done.stderr
    [row] = json.loads(done.stdout)["scenarios"]
    assert row["broken"] == [], done.stderr
    assert (row["lost"], row["unexplained"], row["faults"]) == (0, 0, FAULTS)
    assert row["jobs"] >= 200
    assert row["repeats"] > 0, "no fault met a call"
