"""System checks (`manage.py check`): what a host project can get wrong before the first job, each with a
hint.

Owns no rule of its own: conf.py knows the knobs. The check of the server itself carries Django's `database`
tag, so that it runs with `migrate` and `check --database`, never in a plain `check` of a machine without a
database. What else the database can tell before a deployment is asked by preflight.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.management import CommandError, get_commands
from django.db import DatabaseError, connections
from django.urls import NoReverseMatch, reverse

from llmjobs import conf
from llmjobs.database import dsn
from llmjobs.signing import SECRET_PREFIX, webhook_key

OLDEST_POSTGRES = 15
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
JOBS, JOBS_PATH = "llmjobs-api:jobs", "/api/jobs"
STATIC_FILES = ("llmjobs/client.js", "llmjobs/app.css")  # that change with a version of ours


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


@register()
def check_operator_webhook(**_: Any) -> list[CheckMessage]:
    """What is wrong with it is said without it: address and secret may each be enough to write in its name."""
    faults: list[CheckMessage] = []
    url, secret = str(conf.conf.operator_webhook_url), str(conf.conf.operator_webhook_secret)
    if url and not _is_url(url):
        faults.append(
            Error(
                "LLMJOBS_OPERATOR_WEBHOOK_URL: expected a URL like https://ops.example.org/llmjobs, got something else",
                hint="Operators are told there when a provider's jobs are stopped; empty: they are not.",
                id="llmjobs.E005",
            )
        )
    if secret and not _is_secret(secret):
        faults.append(
            Error(
                "LLMJOBS_OPERATOR_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes in base64, got something else",
                hint='One is made by: python -c "import base64, secrets; '
                "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\"",
                id="llmjobs.E006",
            )
        )
    return faults


@register()
def check_site_url(**_: Any) -> list[CheckMessage]:
    url = str(conf.conf.site_url)
    if not url or (_is_url(url) and not urlsplit(url).query and not urlsplit(url).fragment):
        return []
    return [
        Error(
            f"LLMJOBS_SITE_URL: expected a URL like https://llm.example.org, got {url!r}",
            hint="What operators are told has a link that begins with it; empty: it has a path.",
            id="llmjobs.E007",
        )
    ]


@register()
def check_api_docs(**_: Any) -> list[CheckMessage]:
    if apps.is_installed("drf_spectacular_sidecar") or not _is_mounted("llmjobs-api:docs"):
        return []
    return [
        Warning(
            "drf_spectacular_sidecar is not in INSTALLED_APPS: the page /api/docs stays empty",
            hint="Add it beside 'llmjobs': it is installed already, and holds the scripts of that page.",
            id="llmjobs.W015",
        )
    ]


@register()
def check_addresses(**_: Any) -> list[CheckMessage]:
    """The links of a job are made where no request is, too: by workers, for webhooks."""
    if not _is_mounted(JOBS) or (found := reverse(JOBS)) == JOBS_PATH:
        return []
    return [
        Warning(
            f"the API's jobs are at {found}, expected at {JOBS_PATH}: the links that jobs carry, client.js and the "
            "documentation lead to nothing",
            hint='Include llmjobs.urls at the root: path("", include("llmjobs.urls")).',
            id="llmjobs.W016",
        )
    ]


@register()
def check_heartbeat(**_: Any) -> list[CheckMessage]:
    knobs = {name: getattr(conf.conf, name) for name in ("lease_s", "heartbeat_s")}
    if conf.problems({conf.PREFIX + name.upper(): value for name, value in knobs.items()}):
        return []  # check_knobs says so
    if knobs["heartbeat_s"] < knobs["lease_s"] / 2:
        return []
    return [
        Error(
            f"LLMJOBS_HEARTBEAT_S is {knobs['heartbeat_s']:g}, expected less than half of LLMJOBS_LEASE_S "
            f"({knobs['lease_s']:g})",
            hint="A worker starts no call while its last heartbeat is older than that; a quarter is the default.",
            id="llmjobs.E009",
        )
    ]


@register()
def check_listen_dsn(**_: Any) -> list[CheckMessage]:
    """Whether it leads anywhere is asked before a deployment (preflight.py)."""
    try:
        if conf.conf.listen_dsn:
            dsn(direct=True)
    except psycopg.ProgrammingError as error:
        hint = "Workers LISTEN and send their heartbeats there; empty: where all else goes."
        return [Error(str(error), hint=hint, id="llmjobs.E012")]
    return []


def _is_mounted(name: str) -> bool:
    """Whether the project has this address of ours."""
    try:
        reverse(name)
    except NoReverseMatch:
        return False
    return True


def _is_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and value.split() == [value]
    except ValueError:
        return False


def _is_same(source: str | None, collected: Path) -> bool:
    """Also where there is no source: a host may leave ours out."""
    if source is None:
        return True
    return collected.is_file() and collected.read_bytes() == Path(source).read_bytes()


def _is_secret(value: str) -> bool:
    try:
        return value.startswith(SECRET_PREFIX) and 24 <= len(webhook_key(value)) <= 64
    except ValueError:
        return False


@register(Tags.security, deploy=True)
def check_webhooks_stay_outside(**_: Any) -> list[CheckMessage]:
    if not conf.conf.webhook_allow_private:
        return []
    return [
        Warning(
            "LLMJOBS_WEBHOOK_ALLOW_PRIVATE is true: whoever may submit a job can have a POST made inside your network",
            hint="Leave it out, unless every client is trusted with that.",
            id="llmjobs.W001",
        )
    ]


@register(Tags.security, deploy=True)
def check_metrics_have_a_reader(**_: Any) -> list[CheckMessage]:
    if not conf.conf.metrics_open:
        return []
    return [
        Warning(
            "LLMJOBS_METRICS_OPEN is true: whoever reaches this site reads its models, tiers and what they cost",
            hint="Leave it out and give Prometheus a token, LLMJOBS_METRICS_TOKEN, unless only the inside reaches it.",
            id="llmjobs.W002",
        )
    ]


@register(Tags.security, deploy=True)
def check_hosts(**_: Any) -> list[CheckMessage]:
    """That there are any says Django."""
    hosts = set(settings.ALLOWED_HOSTS)
    if "*" in hosts:
        fault, hint = "any name", "Links in mails and answers are made of the name that a request brings: name yours."
    elif hosts and hosts <= LOCAL_NAMES:
        fault, hint = "the names of this machine alone", "Browsers and clients elsewhere would be answered with 400."
    else:
        return []
    return [Warning(f"ALLOWED_HOSTS: expected the names of this site, got {fault}", hint=hint, id="llmjobs.W003")]


@register(Tags.security, deploy=True)
def check_proxy_header(**_: Any) -> list[CheckMessage]:
    if not settings.SECURE_SSL_REDIRECT or getattr(settings, "SECURE_PROXY_SSL_HEADER", None):
        return []
    return [
        Warning(
            "Who comes by HTTP is sent on to HTTPS, and no header says which of the two it was: behind a proxy that "
            "ends TLS, all are sent on for ever",
            hint="Set TRUST_X_FORWARDED_PROTO=true (SECURE_PROXY_SSL_HEADER in a project of your own), and let the "
            "proxy set X-Forwarded-Proto itself.",
            id="llmjobs.W004",
        )
    ]


@register(Tags.staticfiles, deploy=True)
def check_static_files(**_: Any) -> list[CheckMessage]:
    """Of files that were collected: whether they are those of this version. Who collects none serves the apps' own."""
    root = settings.STATIC_ROOT
    if not root:
        return []
    stale = [name for name in STATIC_FILES if not _is_same(finders.find(name), Path(root) / name)]
    if not stale:
        return []
    return [
        Warning(
            f"STATIC_ROOT lacks {stale[0]}, or has that of another version",
            hint="Run manage.py collectstatic --noinput, at every upgrade.",
            id="llmjobs.W005",
        )
    ]


@register(deploy=True)
def check_operators_are_told(**_: Any) -> list[CheckMessage]:
    if settings.ADMINS or conf.conf.operator_webhook_url:
        return []
    return [
        Warning(
            "Nobody is told of incidents: neither ADMINS nor LLMJOBS_OPERATOR_WEBHOOK_URL is set",
            hint="A stopped provider or a missing worker is seen then only by who looks at the console.",
            id="llmjobs.W006",
        )
    ]


@register(Tags.database, deploy=True)
def check_cursors(**_: Any) -> list[CheckMessage]:
    """The site of this checkout sets both together."""
    if not conf.conf.listen_dsn or connections["default"].settings_dict.get("DISABLE_SERVER_SIDE_CURSORS"):
        return []
    return [
        Warning(
            "LLMJOBS_LISTEN_DSN says that a pooler stands before Postgres, and DISABLE_SERVER_SIDE_CURSORS is not set",
            hint="Cursors of .iterator() do not outlive a transaction there: set it in DATABASES['default'].",
            id="llmjobs.W014",
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
