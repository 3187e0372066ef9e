"""The demo's child processes: started, watched, started again, stopped; none of them outlives the demo.

Owns processes and their log files. Does not know what they do (`site.py`). Invariant: however the demo ends, SIGKILL
included, its children end too: the kernel sends each a signal when the demo's main thread ends (PR_SET_PDEATHSIG).
So children are started in the main thread only. They are in sessions of their own: a Ctrl-C reaches the demo alone,
which stops them in order.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_S = 0.02
QUICK_END_S = 15.0  # a process that fails sooner than this will fail again
KILLED = (signal.SIGKILL, signal.SIGTERM)  # somebody wants to see what happens
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_TAIL_LINES = 8


class ProcessEnded(Exception):
    """A process ended by itself, and starting it again would not help; the message has the end of its log."""


class Child:
    """One process. `orphan_signal` is what the kernel sends it when the demo is killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path,
        pass_fds: Sequence[int] = (),
        orphan_signal: signal.Signals = signal.SIGKILL,
        is_talking: bool = False,
    ) -> None:
        self.name, self.command, self.log = name, list(command), log
        self._environment, self._folder, self._pass_fds = dict(environment), folder, tuple(pass_fds)
        self._orphan_signal = orphan_signal
        self._is_talking = is_talking  # says on stdout when it is ready; else stdout goes to the log
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0  # time.monotonic()
        self._said = b""  # and not yet asked for

    @property
    def pid(self) -> int:
        return self._begun().pid

    def start(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                bufsize=0,
                stdout=subprocess.PIPE if self._is_talking else log,
                stderr=log,
                pass_fds=self._pass_fds,
                start_new_session=True,
                preexec_fn=_tie(os.getpid(), self._orphan_signal),
            )
        self._started_at = time.monotonic()

    def announced(self, prefix: str, within_s: float) -> str:
        """The rest of the next line that it says, which begins with `prefix`. Raises ProcessEnded."""
        stdout = self._begun().stdout
        if stdout is None:
            raise RuntimeError(f"expected {self.name} to be talking")
        deadline = time.monotonic() + within_s
        while b"\n" not in self._said:
            is_late = not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
            piece = b"" if is_late else os.read(stdout.fileno(), 4096)
            if not piece:
                raise ProcessEnded(f"the {self.name} said nothing within {within_s:g} s{self.tail()}")
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        if not line.decode().startswith(prefix):
            raise ProcessEnded(f"expected {prefix!r} from the {self.name}, got {line.decode()!r}")
        return line.decode().removeprefix(prefix).strip()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def has_ended(self) -> bool:
        """By itself, or because somebody else ended it."""
        return self._process is not None and self._process.poll() is not None

    def start_again(self) -> str:
        """After its end: what happened, in words. One that was asked to end is left alone.

        Raises ProcessEnded if it failed soon after its start.
        """
        code, self._process = self._begun().wait(), None
        if code == 0:
            return f"The {self.name} has ended."
        why = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed with status {code}"
        if -code not in KILLED and time.monotonic() - self._started_at < QUICK_END_S:
            raise ProcessEnded(f"the {self.name} {why}{self.tail()}")
        self.start()
        return f"The {self.name} {why}: started again."

    def tail(self) -> str:
        """The last lines of its log, as the end of a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log.exists() else []
        return "\n".join([f"; {self.log} ends with:", *lines]) if lines else ""

    def send(self, number: signal.Signals) -> None:
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                self._begun().send_signal(number)

    def kill(self) -> None:
        """And wait for its end."""
        self.send(signal.SIGKILL)
        self._begun().wait()

    def _begun(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"expected {self.name} to be started")
        return self._process


def stop(children: Sequence[Child], within_s: float) -> None:
    """SIGTERM to all, and SIGKILL to what is left after `within_s` seconds, or when somebody interrupts the wait."""
    for child in children:
        child.send(signal.SIGTERM)
    try:
        _await_end(children, within_s)
    finally:
        for child in children:
            child.send(signal.SIGKILL)
        _await_end(children, within_s=1)


def _await_end(children: Sequence[Child], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and any(child.is_running() for child in children):
        time.sleep(POLL_S)


def end_with_parent() -> None:
    """From now on SIGTERM, SIGHUP, and the end of the process that started this one are like a Ctrl-C.

    The kernel's signal comes already when the *thread* that started this process ends; then nothing is done.
    """
    parent = os.getppid()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def look(*_: object) -> None:
        if os.getppid() != parent:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background job ignores SIGINT
        signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, interrupt)
    signal.signal(signal.SIGUSR1, look)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1), 0, 0, 0)
    look()


def _tie(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """What a child does before its program: it ends with its parent, also with one that ended just now."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
