"""A real nginx in front of a test's web server, by the very file that people copy."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import certificates
from tests.helpers import eventually
from tests.live_process import ROOT, free_port

SHIPPED = ROOT / ".deploy" / "nginx" / "llmjobs.conf"
NAME = "llmjobs.example.com"
AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llmjobs.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """`port` speaks TLS, `plain_port` HTTP."""

    port: int
    plain_port: int
    tls: ssl.SSLContext
    folder: Path

    @property
    def access_log(self) -> str:
        return (self.folder / "llmjobs.log").read_text()

    def connect(self, timeout_s: float = 20) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        return self.tls.wrap_socket(raw, server_hostname=NAME)


def nginx_binary() -> str | None:
    return shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


@contextmanager
def nginx(upstream_port: int, **changes: str) -> Iterator[Front]:
    """`changes`: values of directives that a test has otherwise, such as client_header_timeout="1s"."""
    program = nginx_binary()
    assert program is not None, "nginx is not installed here"
    port, plain_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root its workers are another user
        authority, chain = certificates(folder)
        text = SHIPPED.read_text()
        for old, new in {
            "127.0.0.1:8000": f"127.0.0.1:{upstream_port}",
            "listen 80;": f"listen 127.0.0.1:{plain_port};",
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/llmjobs/fullchain.pem": str(chain),
            "/etc/ssl/llmjobs/privkey.pem": str(chain),  # both are in one file
            "/var/log/nginx": name,
        }.items():
            assert old in text, f"{SHIPPED.name} has no {old!r}"
            text = text.replace(old, new)
        for directive, value in changes.items():
            text, count = re.subn(rf"\b{directive}\s+[^;]+;", f"{directive} {value};", text)
            assert count, f"{SHIPPED.name} has no {directive}"
        (folder / "llmjobs.conf").write_text(text)
        (folder / "nginx.conf").write_text(AROUND.format(folder=name))
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [program, "-p", name, "-c", f"{name}/nginx.conf"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                eventually(lambda: _accepts(process, port, log.fileno()), within_s=20)
                tls = ssl.create_default_context(cafile=authority)
                tls.check_hostname = False  # it was given to 127.0.0.1
                yield Front(port, plain_port, tls, folder)
            finally:
                process.terminate()
                process.wait(15)


def _accepts(process: "subprocess.Popen[bytes]", port: int, log: int) -> None:
    assert process.poll() is None, os.pread(log, 10_000, 0).decode(errors="replace")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == 0, "nginx does not accept yet"
