"""`manage.py demo` as a person or a program starts it: a process, with a data folder and a Postgres of its own."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.helpers import eventually

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 60
NOT_INHERITED = ("DATABASE_URL", "EMBEDDED_POSTGRES_URL", "PYTEST_VERSION", "PYTEST_CURRENT_TEST")


class Demo:
    """A demo that was started. `under_shell`: its parent is a shell, as `make` would be."""

    def __init__(self, data_dir: Path, *arguments: str, under_shell: bool = False, **environment: str) -> None:
        self.data_dir = data_dir
        command = [sys.executable, "manage.py", "demo", "--port", "0", *arguments]
        if under_shell:
            command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command]
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, "LLMJOBS_DATA_DIR": str(data_dir), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> dict[str, Any]:
        """The line of --json."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_WITHIN_S)
        line = self.process.stdout.readline() if readable else ""
        assert line, f"not ready within {READY_WITHIN_S} s: {self._rest_of_stderr()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def finish(self, number: signal.Signals | None = None, within_s: float = 90) -> tuple[int, str, str]:
        """Its status, stdout and stderr, after the signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=within_s)
        return self.process.returncode, out, err

    def children(self, word: str) -> dict[int, str]:
        """Its living processes with this word in their command lines."""
        return {pid: line for pid, line in processes_of(self.data_dir).items() if word in line}

    def close(self) -> None:
        """Ends it, and whatever a demo that fails this test left behind."""
        self.process.kill()
        self.process.wait()
        for pid in processes_of(self.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _rest_of_stderr(self) -> str:
        self.process.kill()
        return self.process.communicate()[1]


def processes_of(data_dir: Path) -> dict[int, str]:
    """Every living process that was started for this data folder, Postgres included: {pid: command line}."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (process / "environ").read_bytes().split(b"\0")
            is_ours = f"LLMJOBS_DATA_DIR={data_dir}".encode() in environment
            if line and (is_ours or (process / "cwd").readlink().is_relative_to(data_dir)):
                found[int(process.name)] = line
        except OSError:
            continue  # gone meanwhile, or a zombie
    return found


def assert_no_process(data_dir: Path) -> None:
    assert not processes_of(data_dir)


def nothing_is_left(data_dir: Path, within_s: float = 15) -> None:
    eventually(lambda: assert_no_process(data_dir), within_s)
