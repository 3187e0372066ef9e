"""Queues that people would pick instead, measured beside ours: each script drains no-op jobs and prints its times.

Owns their virtual environment, which is not ours: `requirements.txt` pins what it holds. It is made when a whole run
first needs it; a quick one does without what is not there.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
FOLDER = HERE.parents[2] / ".data" / "peers"
STAMP = FOLDER / ".installed"


class LeftOut(Exception):
    """Why a peer is not measured."""


def python(*, may_install: bool) -> Path:
    """The interpreter that has the peers. Raises LeftOut."""
    found = FOLDER / "bin" / "python"
    if found.exists() and STAMP.exists() and STAMP.read_text() == REQUIREMENTS.read_text():
        return found
    if not may_install:
        raise LeftOut("not installed; a run without --quick installs it")
    commands = _with_uv() if shutil.which("uv") else _with_pip()
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LeftOut(f"cannot be installed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    STAMP.write_text(REQUIREMENTS.read_text())
    return found


def _with_uv() -> list[list[str]]:
    return [
        ["uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(FOLDER)],
        ["uv", "pip", "install", "--quiet", "--python", str(FOLDER / "bin" / "python"), "-r", str(REQUIREMENTS)],
    ]


def _with_pip() -> list[list[str]]:
    return [
        [sys.executable, "-m", "venv", "--clear", str(FOLDER)],
        [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)],
    ]
