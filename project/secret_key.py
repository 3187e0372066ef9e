"""A SECRET_KEY for a site that was given none: made once, kept in the data folder with mode 0600.

Only for sites on one machine (the embedded default, DEBUG, tests): several hosts need the same key, and a
lost one ends all sessions.
"""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def stored_secret_key(data_dir: Path, *, allowed: bool) -> str:
    if not allowed:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: expected 50 or more random characters, the same on every host "
            "(python3 -c 'import secrets; print(secrets.token_urlsafe(50))')"
        )
    path = data_dir / "secret_key"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        _write_once(path, secrets.token_urlsafe(50))
    return path.read_text()


def _write_once(path: Path, text: str) -> None:
    """Whole or not at all, and the first of two writers wins: a link fails where the name is taken."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
