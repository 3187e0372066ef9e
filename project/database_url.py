"""What DATABASE_URL says, as Django's settings of a connection; django-environ does most of it.

A socket goes into the query, `postgresql://user@/db?host=/var/run/postgresql`: where a URL
has its host, a path does not fit.
"""

from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

EXPECTED = "expected postgresql://user:password@host:5432/name, or postgresql://user@/name?host=/folder"


def connection_settings(url: str) -> dict[str, Any]:
    """Raises ImproperlyConfigured; the message does not have the URL, which may have a password."""
    scheme = url.partition(":")[0]
    if scheme not in ("postgresql", "postgres"):
        raise ImproperlyConfigured(f"DATABASE_URL: {EXPECTED}, got {scheme}:…")
    try:
        found: dict[str, Any] = dict(environ.Env.db_url_config(url))
    except ValueError:  # of the port
        raise ImproperlyConfigured(f"DATABASE_URL: {EXPECTED}, got a port that is no number") from None
    if not found["NAME"]:
        raise ImproperlyConfigured(f"DATABASE_URL: {EXPECTED}, got no name")
    if "%2f" in found["HOST"].lower():
        raise ImproperlyConfigured(f"DATABASE_URL: {EXPECTED}, got %2F in the host")
    found["OPTIONS"] = dict(found.get("OPTIONS") or {})
    for part in ("host", "port"):
        if part in found["OPTIONS"]:
            found[part.upper()] = found["OPTIONS"].pop(part)
    return found
