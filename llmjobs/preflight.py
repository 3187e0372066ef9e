"""What only the database can tell before a deployment: `manage.py check --deploy --database default`, run in the
environment of the process that is to start.

Owns the questions and the words; checks.py has those that need no database. They carry Django's `database` tag, and
all but the first are asked with `--deploy` alone, since `migrate` asks the others. Invariant: nothing is written, and a
database that can't be reached is said once, by checks.py.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import DatabaseError, connections
from django.db.migrations.loader import MigrationLoader

from llmjobs.conf import conf
from llmjobs.database import connect_sync, dsn

APP = "llmjobs"
CLOCK_S_MAX = 2.0
TIMEOUT_S = 5
HEARD_WITHIN_S = 1.0
WORKER_CONNECTIONS = 23  # the pool, the claims', LISTEN, the heartbeat; eight for handlers, one for an operation
WEB_CONNECTIONS = 9  # Django's pool, and three for viewers
NAMED_MAX = 3
CHANNEL = "llmjobs_preflight"
HINT_POOLER = "/docs/pgbouncer/ has the file and the variables."

LOOK = """
select pg_backend_pid(), pg_is_in_recovery(),
    current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on'
        and current_setting('synchronous_commit') <> 'off',
    current_setting('max_connections')::int, current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - (select count(*) from pg_stat_activity where backend_type = 'client backend')::int
"""


@dataclass(frozen=True, slots=True)
class Server:
    """`ahead_s`: by how much its clock is ahead of this host's. `is_pooled`: something stands between."""

    is_standby: bool
    ahead_s: float
    keeps_commits: bool
    connections_max: int
    connections_left: int
    is_pooled: bool


@register(Tags.database)
def check_not_a_standby(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    server = _look(databases)
    if server is None or not server.is_standby:
        return []
    return [
        Error(
            "The database is a standby, which takes no writes",
            hint="DATABASE_URL leads to the primary: after a failover, to the new one.",
            id="llmjobs.E010",
        )
    ]


@register(Tags.database, deploy=True)
def check_what_the_server_is_like(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    server = _look(databases)
    return list(_faults(server)) if server is not None else []


@register(Tags.database, deploy=True)
def check_migrations(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    if _look(databases) is None:
        return []
    loader = MigrationLoader(connections["default"])
    known, applied = set(loader.graph.nodes), set(loader.applied_migrations)
    missing = sorted(f"{app}.{name}" for app, name in known - applied)
    newer = sorted(f"{app}.{name}" for app, name in applied - set(loader.disk_migrations) if app == APP)
    found: list[CheckMessage] = []
    if missing:
        found.append(
            Warning(
                f"The database lacks {_named(missing)}, which this code needs",
                hint="Run manage.py migrate, before the new workers and web servers start.",
                id="llmjobs.W009",
            )
        )
    if newer:
        found.append(
            Warning(
                f"The database has {_named(newer)}, which this code does not know: it is the older of the two",
                hint="While an upgrade is under way, or after code was rolled back, that is as it should be.",
                id="llmjobs.W010",
            )
        )
    return found


@register(Tags.database, deploy=True)
def check_provider_keys(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Of the environment that this runs in: run it in a worker's."""
    if _look(databases) is None:
        return []
    with connections["default"].cursor() as cursor:
        cursor.execute("select to_regclass('llmjobs_provider') is not null")
        if not cursor.fetchone()[0]:
            return []  # before the first migrate
        cursor.execute(
            "select name, api_key_env from llmjobs_provider where api_key_env <> '' and not is_paused order by name"
        )
        lacking = [(name, variable) for name, variable in cursor.fetchall() if not os.environ.get(variable)]
    return [
        Warning(
            f"The provider {name!r} takes its key from {variable}, which is not set here",
            hint="Workers that lack it leave its jobs to others, and tell operators where nobody has it.",
            id="llmjobs.W008",
        )
        for name, variable in lacking
    ]


@register(Tags.database, deploy=True)
def check_pooler(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """What a pooler in transaction mode breaks is tried, over connections as workers open them. Also where none is
    seen and LISTEN has an address of its own: it may be the wrong one.
    """
    server = _look(databases)
    if server is None or not (server.is_pooled or conf.listen_dsn):
        return []
    found: list[CheckMessage] = []
    try:
        if conf.prepare_statements and not _keeps_prepared():
            found.append(
                Error(
                    "DATABASE_URL leads through a pooler that loses prepared statements: claims would fail",
                    hint="PgBouncer from 1.21 on keeps them (max_prepared_statements); "
                    f"for an older one set LLMJOBS_PREPARE_STATEMENTS=false. {HINT_POOLER}",
                    id="llmjobs.E008",
                )
            )
        if not _hears():
            found.append(
                Warning(
                    "LISTEN hears nothing: workers and viewers learn of news by polling alone, up to a second later",
                    hint="Set LLMJOBS_LISTEN_DSN to Postgres itself, past the pooler, and to the same database. "
                    f"{HINT_POOLER}",
                    id="llmjobs.W007",
                )
            )
    except psycopg.Error as error:
        found.append(
            Error(
                f"A connection as workers open it failed: {' '.join(str(error).split())}",
                hint=f"LLMJOBS_LISTEN_DSN, or the pooler's own limits. {HINT_POOLER}",
                id="llmjobs.E011",
            )
        )
    return found


def _faults(server: Server) -> Iterator[CheckMessage]:
    if abs(server.ahead_s) > CLOCK_S_MAX:
        yield Warning(
            f"The database's clock is {abs(server.ahead_s):.0f} s {'ahead of' if server.ahead_s > 0 else 'behind'} "
            "this host's",
            hint="Jobs go by the database's clock; logs, and the stamps of webhooks, by the hosts': let all keep time.",
            id="llmjobs.W011",
        )
    if not server.keeps_commits:
        yield Warning(
            "The server may lose commits in a crash (fsync, full_page_writes or synchronous_commit is off): jobs that "
            "were accepted, and what calls did cost",
            hint="Leave all three on.",
            id="llmjobs.W012",
        )
    if not server.is_pooled and server.connections_left < WORKER_CONNECTIONS:
        yield Warning(
            f"The server has {max(server.connections_left, 0)} connections left of {server.connections_max}; a worker "
            f"takes up to {WORKER_CONNECTIONS}, a web server {WEB_CONNECTIONS}",
            hint=f"Raise max_connections, or set PgBouncer before it. {HINT_POOLER}",
            id="llmjobs.W013",
        )


def _look(databases: Sequence[str] | None) -> Server | None:
    """None: it was not asked for, or can't be reached, which checks.py says."""
    if not databases or "default" not in databases or connections["default"].vendor != "postgresql":
        return None
    connection = connections["default"]
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            asked_at = time.time()
            cursor.execute("select extract(epoch from clock_timestamp())::float8")
            here, there = (asked_at + time.time()) / 2, cursor.fetchone()[0]
            cursor.execute(LOOK)
            pid, is_standby, keeps_commits, most, left = cursor.fetchone()
    except DatabaseError:
        return None
    # A pooler makes up what it tells a client of its session, the process id among it.
    is_pooled = pid != connection.connection.info.backend_pid
    return Server(is_standby, there - here, keeps_commits, most, left, is_pooled)


@contextmanager
def _session() -> Iterator["psycopg.Connection[Any]"]:
    """As workers open theirs."""
    params = dsn() | {"connect_timeout": TIMEOUT_S, "tcp_user_timeout": TIMEOUT_S * 1000}
    with psycopg.connect(**params) as session:
        yield session


def _keeps_prepared() -> bool:
    """Two sessions name their first statement alike; then the first has to run its own where the second's ran."""
    try:
        with _session() as one, _session() as other:
            asked = [
                one.execute("select 1", prepare=True).fetchone(),
                other.execute("select 2", prepare=True).fetchone(),
            ]
            with other.transaction():
                asked.append(one.execute("select 1", prepare=True).fetchone())
                asked.append(other.execute("select 2", prepare=True).fetchone())
            asked.append(one.execute("select 1", prepare=True).fetchone())
    except (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement):
        return False
    return asked == [(1,), (2,), (1,), (2,), (1,)]


def _hears() -> bool:
    with connect_sync(TIMEOUT_S) as ear, _session() as mouth:
        ear.execute(f"listen {CHANNEL}")
        try:
            mouth.execute("select pg_notify(%s, '')", [CHANNEL])
            return any(True for _ in ear.notifies(timeout=HEARD_WITHIN_S, stop_after=1))
        finally:
            ear.execute(f"unlisten {CHANNEL}")


def _named(names: list[str]) -> str:
    return ", ".join(names[:NAMED_MAX]) + (f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else "")
