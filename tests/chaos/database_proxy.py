"""A way to Postgres that a test can cut: tests/cable.py in front of the test server's socket."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from tests.cable import Cable


class DatabaseProxy(Cable):
    def __init__(self) -> None:
        settings = connection.settings_dict
        self._server = str(Path(settings["HOST"]) / f".s.PGSQL.{settings['PORT'] or 5432}")
        self._user, self._name = settings["USER"], settings["NAME"]
        super().__init__(self._to_postgres)

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self.port}/{self._name}"

    def _to_postgres(self) -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._server)
        return far


@contextmanager
def database_proxy() -> Iterator[DatabaseProxy]:
    proxy = DatabaseProxy()
    try:
        yield proxy
    finally:
        proxy.restore()
        proxy.refuse()
