"""System checks (`manage.py check`): what a host project can get wrong before the first job, each with a
hint.

Owns no rule of its own: conf.py knows the knobs. The check of the server itself carries Django's `database`
tag, so that it runs with `migrate` and `check --database`, never in a plain `check` of a machine without a
database.
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.management import CommandError, get_commands
from django.db import DatabaseError, connections

from llmjobs import conf

OLDEST_POSTGRES = 15


@register()
def check_knobs(**_: Any) -> list[CheckMessage]:
    values = {name: getattr(settings, name) for name in dir(settings) if name.startswith(conf.PREFIX)}
    return [
        Error(problem, hint="llmjobs/conf.py lists every setting with its bounds.", id="llmjobs.E001")
        for problem in conf.problems(values)
    ]


@register()
def check_runworker_is_ours(**_: Any) -> list[CheckMessage]:
    """Channels ships a `runworker` too; the app that stands first in INSTALLED_APPS wins."""
    owner = get_commands().get("runworker")
    if owner == "llmjobs":
        return []
    return [
        Error(
            f"manage.py runworker belongs to {owner!r}, expected 'llmjobs'",
            hint="List 'llmjobs' before 'channels' in INSTALLED_APPS, or leave 'channels' out: "
            "'daphne' alone is enough.",
            id="llmjobs.E002",
        )
    ]


@register()
def check_engine(**_: Any) -> list[CheckMessage]:
    vendor = connections["default"].vendor
    if vendor == "postgresql":
        return []
    return [
        Error(
            f"The default database is {vendor!r}, expected 'postgresql'",
            hint="Postgres is the queue: SKIP LOCKED, LISTEN and deferred triggers have no substitute.",
            id="llmjobs.E003",
        )
    ]


@register(Tags.database)
def check_server(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    if not databases or "default" not in databases:
        return []
    fault = server_fault()
    return [Error(fault, hint="See DATABASE_URL in .env.example.", id="llmjobs.E004")] if fault else []


def require_supported_server() -> None:
    """For commands that begin with the database. Raises CommandError, which Django prints as a line."""
    fault = server_fault()
    if fault:
        raise CommandError(fault)


def server_fault() -> str | None:
    """Why the default database can't be used (not reachable, too old), or None."""
    connection = connections["default"]
    if connection.vendor != "postgresql":
        return None  # check_engine says so
    try:
        connection.ensure_connection()
        version: int = connection.pg_version  # type: ignore[attr-defined]
    except DatabaseError as error:
        return f"The database can't be reached: {' '.join(str(error).split())}"
    if version // 10_000 < OLDEST_POSTGRES:
        return f"The server is Postgres {version // 10_000}, expected {OLDEST_POSTGRES} or newer"
    return None
