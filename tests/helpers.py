"""What several tests share: waiting without guessing, and an environment for processes that a test starts.

`eventually` holds the only sleep of the suite.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

from django.db import connection

T = TypeVar("T")

RETRY_S = 0.02
WITHIN_S = 30.0  # of a machine that has much else to do


def eventually(assertion: Callable[[], T], within_s: float = WITHIN_S) -> T:
    """What `assertion` returns once it stops raising AssertionError; past `within_s` it may raise."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return assertion()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(RETRY_S)


async def aeventually(assertion: Callable[[], Awaitable[T]], within_s: float = WITHIN_S) -> T:
    """`eventually` for a coroutine function; the loop runs on between two tries."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await assertion()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_S)


def database_url() -> str:
    """The URL of the test database that this test uses (each xdist worker has its own)."""
    settings = connection.settings_dict
    user = quote(settings["USER"], safe="")
    password = f":{quote(settings['PASSWORD'], safe='')}" if settings["PASSWORD"] else ""
    return (
        f"postgresql://{user}{password}@/{quote(settings['NAME'], safe='')}"
        f"?host={quote(settings['HOST'])}&port={settings['PORT'] or 5432}"
    )


def process_environment(**extra: str) -> dict[str, str]:
    """For a process of ours that a test starts: it uses this test's database."""
    return {**os.environ, "DATABASE_URL": database_url(), **extra}
