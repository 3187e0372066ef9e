"""Reads whose plans are pinned: few live and many dead rows of a hot table mislead the planner into scans."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from llmjobs.sql import load


@contextmanager
def pinned() -> Iterator[None]:
    """By settings that do not outlast it in a caller's transaction. Nothing that is written within stays."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(load("pin_reads"))
        yield
        transaction.set_rollback(True)
