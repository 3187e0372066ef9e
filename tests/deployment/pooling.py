"""A real PgBouncer in front of a test's database, by the very file that people copy.

Debian's package starts one as a service; a test starts its own, as the user that owns the server's socket.
"""

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.db import connection

from tests.helpers import eventually
from tests.live_process import ROOT, free_port

SHIPPED = ROOT / ".deploy" / "pgbouncer" / "pgbouncer.ini"
PREPARES_SINCE = (1, 21)


@dataclass(frozen=True, slots=True)
class Pooler:
    """`url` leads through it, with the name of the test's database. `prepares`: it carries prepared statements."""

    url: str
    prepares: bool

    @property
    def knobs(self) -> dict[str, str]:
        """What our processes are told of it."""
        return {} if self.prepares else {"LLMJOBS_PREPARE_STATEMENTS": "false"}


def binary() -> str | None:
    """PGBOUNCER names one that is not on PATH."""
    return os.environ.get("PGBOUNCER") or shutil.which("pgbouncer", path=os.environ["PATH"] + ":/usr/sbin")


def version(program: str) -> tuple[int, int]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


@contextmanager
def pgbouncer(**changes: str) -> Iterator[Pooler]:
    """`changes`: lines of its file that a test has otherwise."""
    program = binary()
    assert program is not None
    prepares = version(program) >= PREPARES_SINCE
    settings = connection.settings_dict
    port, owner = free_port(), Path(settings["HOST"]).stat()
    config = configparser.ConfigParser(inline_comment_prefixes=None)
    config.read(SHIPPED)
    config["databases"] = {"*": f"host={settings['HOST']} port={settings['PORT'] or 5432} user={settings['USER']}"}
    config["pgbouncer"].update({"listen_port": str(port), "auth_type": "any", "unix_socket_dir": "", **changes})
    if not prepares:
        del config["pgbouncer"]["max_prepared_statements"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pgbouncer.ini"
        with file.open("w") as text:
            config.write(text)
        for path in (Path(folder), file):
            os.chown(path, owner.st_uid, owner.st_gid)
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [program, str(file)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                user=owner.st_uid if os.geteuid() == 0 else None,
            )  # fmt: skip
            try:
                eventually(lambda: _accepts(process, port), within_s=20)
                yield Pooler(f"postgresql://{settings['USER']}@127.0.0.1:{port}/{settings['NAME']}", prepares)
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(15)


def _accepts(process: "subprocess.Popen[bytes]", port: int) -> None:
    assert process.poll() is None, "PgBouncer ended"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == 0, "PgBouncer does not accept yet"
