"""The keeper: a process of its own, the parent of Postgres, which stops it once nobody uses it any more, and starts
it again when it was killed.

It has one thread and ends with Postgres: PR_SET_PDEATHSIG fires at the end of the thread that started the
child, so that a busy process would be the wrong parent.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from project.embedded_postgres.cluster import Cluster, is_unused, surroundings

LOOK_EVERY_S = 0.3  # how long a server outlives a process that was killed
STARTED_AFTER_S = 2.0  # a server that ends sooner than this after its first start never ran
RESTARTS_MAX = 100  # of a server that was killed while it was in use; one that still has children refuses at first
LOG_BYTES_MAX = 16 * 1024 * 1024
# The last two: its log shall not have the rows and statements that it refuses, which hold prompts.
OPTIONS = (
    "listen_addresses=", "timezone=UTC", "log_timezone=UTC", "max_connections=200",
    "log_error_verbosity=terse", "log_min_error_statement=panic",
)  # fmt: skip
SHARED_BUFFERS_MB = (128, 512)  # of 128, Postgres's default, a backlog of a million jobs does not fit its hot part
THROWAWAY_OPTIONS = ("fsync=off", "full_page_writes=off")  # synchronous_commit stays on, as in production


def main() -> None:
    cluster = Cluster.from_arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    postgres, began_at = _spawn(cluster), time.monotonic()
    users = cluster.users_lock.open("a")
    restarts_left = RESTARTS_MAX
    try:
        while not is_unused(cluster, users):
            time.sleep(LOOK_EVERY_S)
            if postgres.poll() is None:
                continue
            if postgres.returncode == 0 or not restarts_left or time.monotonic() - began_at < STARTED_AFTER_S:
                break  # stopped on purpose, or it can't run: who waits for it reads why in its log
            restarts_left -= 1
            postgres = _spawn(cluster)
    finally:
        # `users` is still held: who comes meanwhile waits for the end, and starts the server anew.
        postgres.send_signal(signal.SIGQUIT if cluster.throwaway else signal.SIGINT)
        postgres.wait()
        if cluster.throwaway:
            cluster.remove()


def _spawn(cluster: Cluster) -> "subprocess.Popen[bytes]":
    command: list[str | Path] = [cluster.binaries / "postgres", "-D", cluster.data]
    sockets = str(cluster.sockets).replace('"', '""')  # a list of folders, in which quotes keep spaces
    options = (f'unix_socket_directories="{sockets}"', f"shared_buffers={_shared_buffers_mb()}MB", *OPTIONS)
    for option in (*options, *THROWAWAY_OPTIONS) if cluster.throwaway else options:
        command += ["-c", option]
    if cluster.log.exists() and cluster.log.stat().st_size > LOG_BYTES_MAX:
        cluster.log.replace(cluster.log.with_suffix(".log.1"))
    with cluster.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_stop_with_parent,
            **surroundings(cluster.run_as),
        )


def _shared_buffers_mb() -> int:
    """A sixteenth of the memory, within bounds; it is taken as it is used."""
    least, most = SHARED_BUFFERS_MB
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)
    return min(max(memory_mb // 16, least), most)


def _stop_with_parent() -> None:
    """A fast shutdown when the keeper is killed. (A change of user clears this, but comes before.)"""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGINT)


if __name__ == "__main__":
    main()
