"""What the demo runs: the simulator, the web server and the workers, each by the command that anybody would use.

Owns their arguments, the web server's socket, and the lock that lets one demo at a time use a data folder. Does not own
how processes live and end (`processes.py`). Invariant: all of it listens on loopback only, and no process but those of
`--provider openai` is given a provider's key.
"""

import contextlib
import errno
import fcntl
import fnmatch
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from llmjobs.conf import conf
from llmjobs.demo.client import Api, ApiError
from llmjobs.demo.processes import Child, ProcessEnded, stop
from llmjobs.models import Worker

HOST = "127.0.0.1"
PORTS_TRIED = 50  # above the one that was asked for
READY_WITHIN_S = 60
DRAIN_S = 3.0  # for what runs at a Ctrl-C; what is left is handed back, and runs with the next demo
STOP_WITHIN_S = 8.0
POLL_S = 0.02
TTFT_MS, TOKENS_PER_S = 300.0, 40.0  # of the simulator at its natural speed: a reader can follow it


class AlreadyRunning(Exception):
    """Another demo uses this data folder."""


def data_dir() -> Path:
    return root() / conf.data_dir


def root() -> Path:
    """Where manage.py is: what is started here has this as its folder."""
    return Path(getattr(settings, "BASE_DIR", Path.cwd()))


@contextlib.contextmanager
def only_demo(folder: Path) -> Iterator[None]:
    """Raises AlreadyRunning. The kernel lets go of the lock however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"another demo runs on {folder.parent}: stop it, or set LLMJOBS_DATA_DIR to a folder of its own"
            ) from None
        yield


class Site:
    """`speed`: how many times its natural speed the simulator talks. `is_paid`: processes get the provider's key."""

    def __init__(self, folder: Path, *, port: int, workers: int, speed: float = 1.0, is_paid: bool = False) -> None:
        self._folder, self._environment = folder, _environment(is_paid=is_paid)
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self.simulator_url = self.control_url = ""
        self.simulator = self._child(
            "simulator",  # without Django, which it does not need: it answers in a tenth of a second
            [
                sys.executable, "-m", "llmjobs.providers.simulator", "--die-with-parent", "--port", "0",
                "--ttft-ms", f"{TTFT_MS / speed:g}", "--tokens-per-s", f"{TOKENS_PER_S * speed:g}",
            ],
            is_talking=True,
        )  # fmt: skip
        self.web = self._child(
            "web server",
            [
                sys.executable, "-m", "daphne", "--fd", str(self._socket.fileno()), "--no-server-name", "-v", "0",
                "--application-close-timeout", "1", _application(),
            ],
            pass_fds=[self._socket.fileno()],
        )  # fmt: skip
        self.workers = [
            self._child(
                "worker" if workers == 1 else f"worker {number}",
                [*_manage(), "runworker", "--die-with-parent", "--drain-timeout", str(DRAIN_S)],
                orphan_signal=signal.SIGTERM,
            )
            for number in range(1, workers + 1)
        ]

    def start(self) -> None:
        """The simulator and the web server, which need no tables yet. Raises ProcessEnded."""
        self.simulator.start()
        self.web.start()
        self._hear_simulator()

    def start_workers(self) -> None:
        for worker in self.workers:
            worker.start()

    def wait_for_web(self, api: Api) -> None:
        """Until the API answers with the models. Raises ProcessEnded, ApiError."""
        for _ in self._tries("the web server"):
            try:
                api.get("/api/models")
                return
            except ApiError as error:
                if error.status < 500:
                    raise
            except OSError:
                pass  # cut off; else a request waits in the socket's queue until the server is up

    def wait_for_workers(self) -> None:
        """Until each has entered itself in the table. Raises ProcessEnded."""
        pids = [worker.pid for worker in self.workers]
        for _ in self._tries("the worker"):
            here = Worker.objects.filter(pid__in=pids, host=socket.gethostname()[:255], stopped_at=None)
            if here.values("pid").distinct().count() == len(pids):
                return

    def mend(self) -> list[str]:
        """Starts again what was killed; what happened, a sentence each. Raises ProcessEnded if that does not help."""
        told = []
        for child in [self.simulator, self.web, *self.workers]:
            if child.has_ended():
                told.append(child.start_again())
                if child is self.simulator and child.is_running():
                    self._hear_simulator()
        return told

    def stop(self) -> None:
        """The workers first, so that what they run can end."""
        try:
            stop(self.workers, STOP_WITHIN_S)
        finally:
            stop([self.web, self.simulator], STOP_WITHIN_S)
            self._socket.close()

    def _tries(self, name: str) -> Iterator[None]:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            for child in [self.simulator, self.web, *self.workers]:
                if child.has_ended():
                    raise ProcessEnded(f"the {child.name} ended at its start{child.tail()}")
            yield
            time.sleep(POLL_S)
        raise ProcessEnded(f"{name} is not ready after {READY_WITHIN_S} s")

    def _hear_simulator(self) -> None:
        """Where it is; started again it comes back there."""
        self.simulator_url = self.simulator.announced("listening on ", READY_WITHIN_S)
        self.control_url = self.simulator.announced("control on ", READY_WITHIN_S)
        port = urlsplit(self.simulator_url).port
        self.simulator.command[self.simulator.command.index("--port") + 1] = str(port)

    def _child(self, name: str, command: list[str], **options: object) -> Child:
        log = self._folder / f"{name.replace(' ', '-')}.log"
        return Child(name, command, log=log, environment=self._environment, folder=root(), **options)  # type: ignore[arg-type]


def _environment(*, is_paid: bool) -> dict[str, str]:
    """Empty, not absent: a `.env` file fills in what is absent."""
    patterns = [pattern.strip() for pattern in conf.provider_keys_env.split(",")]
    environment = {
        "HTTPS_ONLY": "false",
        "LLMJOBS_METRICS_OPEN": "true",  # on loopback, to try it with
        "LLMJOBS_WEBHOOK_ALLOW_PRIVATE": "true",  # to a receiver of one's own, to look at what comes
        **os.environ,
        "DJANGO_SETTINGS_MODULE": settings.SETTINGS_MODULE,
    }
    if not is_paid:
        for name in {*environment, "OPENAI_API_KEY", "OPENAI_BASE_URL"}:
            if name in ("OPENAI_API_KEY", "OPENAI_BASE_URL") or any(fnmatch.fnmatchcase(name, p) for p in patterns):
                environment[name] = ""
    return environment


def _listen(port: int) -> socket.socket:
    """On `port`, or on the next one that is free. Connections queue here before the web server is up."""
    for candidate in range(port, min(port + PORTS_TRIED, 65_536)) if port else [0]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen(256)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return listener
    raise OSError(errno.EADDRINUSE, f"expected a free port from {port} on, found none in {PORTS_TRIED}")


def _application() -> str:
    module, _, name = settings.ASGI_APPLICATION.rpartition(".")
    return f"{module}:{name}"


def _manage() -> list[str]:
    manage = root() / "manage.py"
    return [sys.executable, str(manage)] if manage.exists() else [sys.executable, "-m", "django"]
