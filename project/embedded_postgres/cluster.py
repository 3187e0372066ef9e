"""One cluster: where its parts are, whether it answers, whether anybody uses it.

Shared by the process that starts a server and by the keeper that stops it. Starts and stops nothing itself.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import psycopg

SUPERUSER = "postgres"
DATABASE = "llmjobs"
PORT = 5432  # only the last part of the socket's name: nothing listens on a network
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
POLL_S = 0.02


class EmbeddedPostgresError(Exception):
    """The embedded server can't be had here; the message says what was tried."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`run_as` is the user that its processes drop to, None unless this process is root."""

    home: Path
    binaries: Path
    run_as: str | None
    throwaway: bool

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "postgres.log"

    @property
    def users_lock(self) -> Path:
        """Held shared by each process that needs the server, alone by the one that stops it."""
        return self.home / "users.lock"

    @property
    def sockets(self) -> Path:
        """In the home; in /tmp where the path is too long to bind, or has the comma that parts two hosts."""
        inside = self.home / "run"
        if len(os.fsencode(inside)) + len(f"/.s.PGSQL.{PORT}") <= SOCKET_PATH_BYTES_MAX and "," not in str(inside):
            return inside
        return Path("/tmp") / f"llmjobs-{os.geteuid()}-{digest(self.home)}"  # noqa: S108 (private, or refused)

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self.sockets))}&port={PORT}"

    def connect(self) -> "psycopg.Connection[Any]":
        """To the maintenance database, which is always there. Raises psycopg.OperationalError."""
        import psycopg

        return psycopg.connect(
            f"dbname=postgres user={SUPERUSER} port={PORT} connect_timeout=5",
            host=str(self.sockets),
            autocommit=True,
        )

    def answers(self) -> bool:
        """Running means that a connection succeeds: not that there is a process or a pid file."""
        import psycopg

        if not self.sockets.exists():
            return False
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def is_alive(self) -> bool:
        """Whether a process of Postgres is left: all work in the data folder. (A zombie works nowhere.)"""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == self.data:
                    return True
            except OSError:
                continue  # gone meanwhile, a zombie, or another user's
        return False

    def count_clients(self) -> int:
        """How many are connected; none to a server that does not answer."""
        import psycopg

        count = """
            select count(*)
            from pg_stat_activity
            where backend_type = 'client backend' and pid <> pg_backend_pid()
        """
        try:
            with self.connect() as connection:
                row = connection.execute(count).fetchone()
        except psycopg.OperationalError:
            return 0
        return row[0] if row else 0

    def remove(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def as_arguments(self) -> list[str]:
        return [str(self.home), str(self.binaries), self.run_as or "", "throwaway" if self.throwaway else ""]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> "Cluster":
        home, binaries, run_as, throwaway = arguments
        return cls(Path(home), Path(binaries), run_as or None, bool(throwaway))


def is_unused(cluster: Cluster, users: IO[str], patience_s: float = 0) -> bool:
    """True: nobody needs the server, and `users` is now held alone, so that whoever comes has to wait.

    Who is connected counts too (psql, a process that was given the URL), but not for a throw-away cluster.
    `patience_s`: for how long the connections of processes that have just ended may take to go away.
    """
    deadline = time.monotonic() + patience_s
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    while not cluster.throwaway and cluster.count_clients() > 0:
        if time.monotonic() >= deadline:
            fcntl.flock(users, fcntl.LOCK_UN)
            return False
        time.sleep(POLL_S)
    return True


def run(command: Sequence[str | Path], user: str | None) -> "subprocess.CompletedProcess[bytes]":
    """The ended command, with what it wrote in `stdout`; as `user`, without that user's other groups."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        **surroundings(user),
    )


def surroundings(user: str | None) -> dict[str, Any]:
    """For subprocess: no PG* variable of ours reaches Postgres, and it begins in a folder open to all."""
    given: dict[str, Any] = {"cwd": "/", "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}}
    if user is not None:
        entry = pwd.getpwnam(user)
        given |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return given


def digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
