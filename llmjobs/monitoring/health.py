"""Whether this process is alive, and whether it may be sent requests: for load balancers and orchestrators.

`/healthz` asks nobody: who restarts processes by it must not restart them because Postgres is away. `/readyz` asks the
database, and whether it has all migrations that this code needs. Nobody authenticates here, so answers hold states and
no words of the database, which name hosts and users. A flood of questions costs one look in READY_S.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast

import psycopg
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils.decorators import sync_and_async_middleware
from django.views.decorators.http import require_safe

from llmjobs import __version__
from llmjobs.database import dsn
from llmjobs.monitoring.keeping import Kept

logger = logging.getLogger("llmjobs.monitoring")

READY_S = 2.0
TIMEOUT_S = 2  # libpq takes no less
NAMED_MAX = 3
HEADERS = {"Cache-Control": "no-store"}

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
State = dict[str, Any]


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok", "version": __version__}, headers=HEADERS)


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    state = _ready.get()
    response = JsonResponse(state, status=200 if state["status"] == "ready" else 503, headers=HEADERS)
    response._has_been_logged = True  # type: ignore[attr-defined]  # Django would mail each 503 to ADMINS
    return response


@sync_and_async_middleware
def probes(get_response: GetResponse) -> GetResponse:
    """Answers both before anything looks at the host or asks for HTTPS: probes come by a pod's address, and plainly.

    Under ASGI without a thread, but for the one that looks.
    """
    views = {"/healthz": healthz, "/readyz": readyz}

    def answer(request: HttpRequest) -> HttpResponseBase:
        view = views.get(request.path_info, get_response)
        return cast("HttpResponseBase", view(request))

    async def answer_async(request: HttpRequest) -> HttpResponseBase:
        view = views.get(request.path_info)
        if view is None:
            return await cast("Awaitable[HttpResponseBase]", get_response(request))
        if view is readyz and _ready.fresh() is None:
            await sync_to_async(_ready.get, thread_sensitive=False)()
        return view(request)

    return answer_async if iscoroutinefunction(get_response) else answer


def _look() -> State:
    """Over a connection of its own: neither a pool that is used up nor a transaction says anything here."""
    params: dict[str, Any] = {**dsn(), "connect_timeout": TIMEOUT_S, "tcp_user_timeout": TIMEOUT_S * 1000}
    try:
        with psycopg.connect(**params) as conn, conn.transaction():
            conn.execute("select set_config('statement_timeout', %s, true)", [f"{TIMEOUT_S}s"])
            applied = set(conn.execute("select app, name from django_migrations").fetchall())
    except psycopg.errors.UndefinedTable:
        applied = set()
    except (psycopg.Error, OSError):
        return _state(database="unreachable", migrations="unknown")
    missing = sorted(f"{app}.{name}" for app, name in _needed() - applied)
    if not missing:
        return _state(database="ok", migrations="ok")
    named = ", ".join(missing[:NAMED_MAX]) + (" …" if len(missing) > NAMED_MAX else "")
    return _state(database="ok", migrations=f"{len(missing)} to apply: {named}")


def _state(**checks: str) -> State:
    is_ready = all(check == "ok" for check in checks.values())
    if not is_ready:
        logger.warning("event=not_ready database=%s migrations=%r", checks["database"], checks["migrations"])
    return {"status": "ready" if is_ready else "not ready", "checks": checks}


@cache
def _needed() -> frozenset[tuple[str, str]]:
    """All migrations of this code, but for those that another one replaces: `migrate` notes both kinds."""
    found = MigrationLoader(None).disk_migrations
    replaced = {old for migration in found.values() for old in migration.replaces}
    return frozenset(set(found) - replaced)


_ready = Kept(_look, for_s=READY_S)
