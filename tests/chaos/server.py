"""A Postgres of the run's own, which a scenario may stop, kill and start again.

Owns the cluster and its process; takes both away at the end. Uses what the embedded server is made of
(`project/embedded_postgres/`), without its keeper, which would start a killed server at once. fsync is on, as in
production: what was acknowledged must outlive the server, and `commit_delay` works only then.
Invariant: however the run ends, SIGKILL included, Postgres ends too; what a killed run left in its folder is swept by
the next embedded throw-away server, since the folder is where those are.
"""

import ctypes
import fcntl
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from project.embedded_postgres import _initdb, _locked, _remove_stale_lock_files, place
from project.embedded_postgres.cluster import DATABASE, POLL_S, Cluster, surroundings

ENDINGS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "crash": signal.SIGKILL}
CONNECTIONS_MAX = 200
START_WITHIN_S = 60
PR_SET_PDEATHSIG = 1


class Server:
    """Started in the main thread only: the kernel stops it when the thread ends that started it."""

    def __init__(self, data_dir: Path) -> None:
        base, run_as, binaries = place.choose(data_dir, os.environ.get("LLMJOBS_PG_BIN", ""))
        home = base / "throwaway" / f"chaos-{os.getpid()}-{secrets.token_hex(3)}"
        self._cluster = Cluster(home, binaries, run_as, throwaway=True)
        self._process: subprocess.Popen[bytes] | None = None
        with _locked(base / "start.lock"):  # who sweeps holds it, and takes a folder that nobody uses for a leftover
            home.mkdir(parents=True)
            self._users = self._cluster.users_lock.open("a")
            fcntl.flock(self._users, fcntl.LOCK_SH)

    def __enter__(self) -> Self:
        _initdb(self._cluster)
        self.start()
        with self._cluster.connect() as connection:
            connection.execute(f'create database "{DATABASE}"')
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop("immediate")
        self._users.close()
        self._cluster.remove()

    @property
    def url(self) -> str:
        return self._cluster.url

    def start(self, *, connections_max: int = CONNECTIONS_MAX, **settings: str) -> None:
        """Returns when it answers."""
        place.make_private(self._cluster.sockets, self._cluster.run_as)
        _remove_stale_lock_files(self._cluster)
        options = {
            "listen_addresses": "", "timezone": "UTC", "log_timezone": "UTC", "max_connections": str(connections_max),
            "unix_socket_directories": str(self._cluster.sockets), "shared_buffers": "256MB", **settings,
        }  # fmt: skip
        command: list[str | Path] = [self._cluster.binaries / "postgres", "-D", self._cluster.data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._cluster.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_end_with_parent(), **surroundings(self._cluster.run_as),
            )  # fmt: skip
        deadline = time.monotonic() + START_WITHIN_S
        while not self._cluster.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Postgres did not start: {self._cluster.log.read_text(errors='replace')[-2_000:]}")
            time.sleep(POLL_S)

    def stop(self, ending: str) -> None:
        """`fast`: sessions end in order. `immediate`: none is asked. `crash`: the postmaster is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(ENDINGS[ending])
        process.wait()
        while self._cluster.is_alive():  # a crash leaves children, which end when they notice
            time.sleep(POLL_S)

    def restart(self, ending: str, *, away_s: float = 0, connections_max: int = CONNECTIONS_MAX) -> None:
        self.stop(ending)
        time.sleep(away_s)
        self.start(connections_max=connections_max)

    def recover(self) -> None:
        """Running, and without a scenario's settings, whatever became of the scenario."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        with self._cluster.connect() as connection:
            connection.execute("alter system reset all")
            connection.execute("select pg_reload_conf()")

    def terminate_everybody(self) -> int:
        """Ends all sessions, also those that wait for a lock or commit just now; returns how many."""
        return self._count("select count(pg_terminate_backend(pid)) from pg_stat_activity where {others}")

    def count_sessions(self) -> int:
        return self._count("select count(*) from pg_stat_activity where {others}")

    def configure(self, **settings: str) -> None:
        """While it runs; the empty text is the default."""
        with self._cluster.connect() as connection:
            for name, value in settings.items():
                connection.execute(f"alter system set {name} = '{value}'" if value else f"alter system reset {name}")
            connection.execute("select pg_reload_conf()")

    def _count(self, query: str) -> int:
        others = "backend_type = 'client backend' and pid <> pg_backend_pid()"
        with self._cluster.connect() as connection:
            row = connection.execute(query.format(others=others)).fetchone()
        return row[0] if row else 0


def _end_with_parent() -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT))
