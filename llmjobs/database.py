"""Connections beside Django's, to the same database: for the workers' hot path and for LISTEN.

Django's parameters, less what only its own backend understands. In autocommit: a transaction is begun where one is
meant. Statements are prepared at their second use, which takes planning (2 to 10 ms for a claim) out of the hot path.
PgBouncer carries prepared statements in transaction mode since 1.21 (`max_prepared_statements`); behind an older one
`conf.prepare_statements` is false, and preflight.py says so where it is not.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any

import psycopg
from django.db import connection, connections
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.utils import CursorWrapper
from django.db.models import Model
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool

from llmjobs.conf import conf

# What says that Postgres is away: wait and try again. The pool's own time-out is an OperationalError too.
DATABASE_GONE = (psycopg.OperationalError, psycopg.InterfaceError)
Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]  # a connection for a while
LISTEN_EXPECTED = "LLMJOBS_LISTEN_DSN: expected postgresql://user:password@host:5432/name, got something else"
PREPARE_THRESHOLD = 1
POOL_TIMEOUT_S = 5.0
TCP_TIMEOUT_MS = 10_000


def dsn(*, direct: bool = False) -> dict[str, Any]:
    """Parameters for psycopg; `direct` prefers `conf.listen_dsn`, past a pooler that can't LISTEN.

    Raises psycopg.ProgrammingError for a `listen_dsn` that is none, which checks.py says before a worker starts.
    """
    if direct and conf.listen_dsn:
        return {"conninfo": _well_formed(conf.listen_dsn), "autocommit": True}
    params = dict(connections["default"].get_connection_params())
    for name in ("cursor_factory", "context", "pool"):
        params.pop(name, None)
    return params | {
        "autocommit": True,
        "prepare_threshold": PREPARE_THRESHOLD if conf.prepare_statements else None,
        "tcp_user_timeout": TCP_TIMEOUT_MS,  # a server that vanished without a word
    }


def _well_formed(listen_dsn: str) -> str:
    """psycopg's own words would quote it, with its password, in a line of the log at every try."""
    try:
        conninfo_to_dict(listen_dsn)
    except psycopg.ProgrammingError:
        raise psycopg.ProgrammingError(LISTEN_EXPECTED) from None
    return listen_dsn


def async_pool(*, min_size: int, max_size: int) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool that is not open yet.

    Its attempts to reconnect wait twice as long each time, so that it would come back as late again as an outage was
    long: each is given up after some seconds, and the next caller begins anew.
    """
    return AsyncConnectionPool(
        kwargs=dsn(),
        min_size=min_size,
        max_size=max_size,
        timeout=POOL_TIMEOUT_S,
        reconnect_timeout=POOL_TIMEOUT_S,
        open=False,
        name="llmjobs",
        configure=_read_committed,
    )


async def connect_async() -> AsyncConnection[Any]:
    conn = await AsyncConnection.connect(**dsn(direct=True))
    await _read_committed(conn)
    return conn


async def _read_committed(conn: AsyncConnection[Any]) -> None:
    """Whatever the database's default: a claim must see what was committed while it waited for the turnstile."""
    await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)


def connect_sync(timeout_s: float) -> psycopg.Connection[Any]:
    return psycopg.connect(**dsn(direct=True) | {"connect_timeout": max(2, int(timeout_s))})


@asynccontextmanager
async def one_trip(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """A transaction whose statements and COMMIT go out without a wait for results, so that it is over in one trip.

    psycopg's own transaction waits for the results first. No result can be read inside. It sends one after the other,
    so that a worker can freeze between two of them: no time-out for idle transactions ends that, since a pipeline that
    was not closed does not count as idle. Other workers do (sql/free_frozen.sql).
    """
    try:
        async with conn.pipeline():
            # Said here: the connection's isolation level goes out with psycopg's own BEGIN alone.
            await conn.execute("begin isolation level read committed")
            yield
            await conn.execute("commit")
    except BaseException:
        with suppress(psycopg.Error):  # it may be gone
            await conn.rollback()
        raise


@contextmanager
def prepared_cursor() -> Iterator[CursorWrapper]:
    """Django's connection, for the hot path's statements: planning the one that submits takes as long as running it.

    Prepared where the connection's own `prepare_threshold` allows it, as a web server's does (Django's: never).
    Its cursors write parameters into the text, which no plan outlives.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors:
        inner: Any = ServerBindingCursor(connection.connection)  # type: ignore[call-arg]
    wrapped = connection.make_debug_cursor if connection.queries_logged else connection.make_cursor
    with wrapped(inner) as cursor:
        yield cursor


def rows_of(cursor: CursorWrapper, row: Sequence[Any], models: Mapping[str, type[Model]]) -> dict[str, Any]:
    """The objects that stand in a row whose columns are named `<name>.<column>`, for each name of `models`.

    They stand in the order of a model's fields, as `from_db` wants them; what is left out is read when it is asked for.
    """
    names = [column.name.partition(".") for column in cursor.description]
    made = {}
    for table, model in models.items():
        columns = {name: value for (prefix, _, name), value in zip(names, row, strict=True) if prefix == table}
        made[table] = model.from_db(connection.alias, list(columns), list(columns.values()))
    return made
