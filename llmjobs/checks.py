"""System checks (`manage.py check`): what a host project can get wrong before the first job, each with a
hint.

Owns no rule of its own: conf.py knows the knobs. The check of the server itself carries Django's `database`
tag, so that it runs with `migrate` and `check --database`, never in a plain `check` of a machine without a
database.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.management import CommandError, get_commands
from django.db import DatabaseError, connections

from llmjobs import conf
from llmjobs.signing import SECRET_PREFIX, webhook_key

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


def _is_url(value: str) -> bool:
    try:
        url = urlsplit(value)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and value.split() == [value]
    except ValueError:
        return False


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
