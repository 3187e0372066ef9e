#!/usr/bin/env python3
"""Django's command line for this site. A wrong setting or an unreachable database is told in a line."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db import OperationalError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        _end(f"Not configured: {error}", error)
    except OperationalError as error:
        if not _is_about_connecting(error):
            raise
        _end(f"No connection to the database that DATABASE_URL names: {str(error).strip()}", error)


def _end(message: str, error: Exception) -> None:
    if "--traceback" in sys.argv:
        raise error
    sys.exit(message)


def _is_about_connecting(error: OperationalError) -> bool:
    """No SQLSTATE: no answer. 08, 28, 3D, 57P: refused, wrong password, no such database, shutting down."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return sqlstate is None or sqlstate.startswith(("08", "28", "3D", "57P"))


if __name__ == "__main__":
    main()
