"""E-mail from environment variables: ADMINS, and EMAIL_URL as django-environ reads it.

Raises ImproperlyConfigured with the variable's name and what was expected, and never with the password.
"""

from email.utils import getaddresses
from typing import Any
from urllib.parse import urlsplit

import django
import environ
from django.core.exceptions import ImproperlyConfigured

LOCAL_SERVER = "smtp://localhost:25"


def addresses(name: str, text: str) -> list[tuple[str, str]] | list[str]:
    """Those in `text`: "Ops <ops@example.org>, night@example.org". As Django has them: before 6.0 (name, address)."""
    found = getaddresses([text]) if text.strip() else []
    for _, address in found:
        local, _, host = address.rpartition("@")
        if not local or not host:
            raise ImproperlyConfigured(
                f"{name}: expected addresses like Ops <ops@example.org>, by commas, got {text!r}"
            )
    return found if django.VERSION < (6,) else [address for _, address in found]


def server(name: str, url: str) -> dict[str, Any]:
    """Django's EMAIL_* settings that the URL stands for; empty: a server on this machine."""
    schemes = environ.Env.EMAIL_SCHEMES
    try:
        parts = urlsplit(url or LOCAL_SERVER)
        is_known = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:
        is_known = False
    if not is_known:
        raise ImproperlyConfigured(
            f"{name}: expected a URL like smtp+tls://user:password@mail.example.org:587, its scheme one of "
            f"{', '.join(sorted(schemes))}, got something else"
        )
    return dict(environ.Env.email_url_config(url or LOCAL_SERVER))
