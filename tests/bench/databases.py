"""The databases of one run, on the site's server: a migrated empty one as the template, and copies of it.

Owns their names and takes them all away at the end, also those of runs that were killed; the server's other databases
are not touched. A copy is a matter of a tenth of a second, so each part that leaves a backlog has one of its own.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from psycopg import sql

PREFIX = "llmjobs_bench_"
EMPTY = f"{PREFIX}{os.getpid()}_empty"
_numbers = itertools.count(1)


@contextmanager
def prepared() -> Iterator[None]:
    """Django is set up. From here on everything uses a new database; `fresh` makes others beside it."""
    _sweep()
    try:
        with server() as conn:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(EMPTY)))
        use(EMPTY)
        call_command("migrate", verbosity=0, interactive=False)
        connections.close_all()  # a template has no guests
        use(fresh())
        yield
    finally:
        connections.close_all()
        _drop_all(f"{PREFIX}{os.getpid()}_")


def fresh() -> str:
    """The name of a new database, migrated and empty."""
    name = f"{PREFIX}{os.getpid()}_{next(_numbers)}"
    with server() as conn:
        conn.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(EMPTY)))
    return name


def use(name: str) -> None:
    """Here and, by the environment, in every process that is started from here."""
    connections.close_all()
    settings.DATABASES["default"]["NAME"] = connection.settings_dict["NAME"] = name
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    is_embedded = os.environ["DATABASE_URL"] == os.environ.get("EMBEDDED_POSTGRES_URL")
    os.environ["DATABASE_URL"] = url
    if is_embedded:
        os.environ["EMBEDDED_POSTGRES_URL"] = url


@contextmanager
def using(name: str) -> Iterator[None]:
    """`use`, for a while; nothing, where it is in use already."""
    before = connection.settings_dict["NAME"]
    if before == name:
        yield
        return
    use(name)
    try:
        yield
    finally:
        use(before)


def drop(name: str) -> None:
    with server() as conn:
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def parameters(name: str) -> dict[str, Any]:
    """For psycopg, in autocommit; what only Django's backend understands is left out."""
    params = {**connection.get_connection_params(), "dbname": name, "autocommit": True}
    for django_only in ("cursor_factory", "context", "pool"):
        params.pop(django_only, None)
    return params


def url(name: str) -> str:
    """The same as a URL, for programs that are not ours."""
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


def server() -> "psycopg.Connection[Any]":
    return psycopg.connect(**parameters("postgres"))


def _sweep() -> None:
    """Databases of runs that were killed."""
    with server() as conn:
        rows = conn.execute("select datname from pg_database where starts_with(datname, %s)", [PREFIX]).fetchall()
    pids = {name.removeprefix(PREFIX).partition("_")[0] for (name,) in rows}
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            _drop_all(f"{PREFIX}{pid}_")


def _drop_all(prefix: str) -> None:
    with server() as conn:
        rows = conn.execute("select datname from pg_database where starts_with(datname, %s)", [prefix]).fetchall()
    for (name,) in rows:
        drop(name)
