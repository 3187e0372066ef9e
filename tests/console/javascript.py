"""Runs the JavaScript tests of this folder in Node, whose own runner finds and reports them."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

HERE = Path(__file__).parent
NODE_AT_LEAST = 20


def node() -> str:
    """Node's path. Without one the test is skipped; where REQUIRE_BROWSER=1 it fails."""
    if found := find_node():
        return found
    reason = f"expected Node {NODE_AT_LEAST} or newer on PATH, or with Playwright, found none"
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def find_node() -> str | None:
    """That on PATH, or, where there is none or too old a one, that which Playwright brings with it."""
    for program in (shutil.which("node"), compute_driver_executable()[0]):
        if program and Path(program).exists():
            major = re.match(r"v(\d+)", version_of(program))
            if major and int(major[1]) >= NODE_AT_LEAST:
                return program
    return None


@cache
def version_of(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run_tests(name: str, within_s: float = 60) -> str:
    """What Node said of the tests in the file `name`. Fails with it if one of them failed, or if there were none."""
    command = [node(), "--test", "--test-reporter=tap", "--test-timeout=20000", str(HERE / name)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NODE_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=within_s, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"^# pass [1-9]", done.stdout, re.MULTILINE), said
    return said
