"""Counting jobs: what triggers on Job noted (models/counts.py) becomes the counts that limits and statistics read.

One at a time counts, the others skip their turn; who submits never waits for it. Without workers a submitter helps once
in a while, so that what is not counted stays some thousand rows.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from psycopg import AsyncConnection

from llmjobs import tallying
from llmjobs.sql import load

COUNT_ROWS = 5_000  # changes that one count takes: tens of milliseconds
COUNT_EVERY_S = 1.0  # each worker asks so often, and all of them together count so often
HELP_EVERY_JOBS = 1_000
HELP_CHANGES = 2_000  # so many are waiting to be counted where no worker does


async def count(conn: AsyncConnection[Any]) -> int:
    """Count everything that changed, unless another does or just did. Returns how many changes it took."""
    taken, every_s = 0, COUNT_EVERY_S * 0.9  # who asks each second shall not come a moment too early
    while True:
        async with conn.transaction():
            due = await conn.execute(load("count_is_due"), {"every_s": every_s, "least": 0})
            is_due, is_sweep, *_ = await due.fetchone() or (False, False)
            if not is_due:
                return taken
            cursor = await conn.execute(load("count", rows=COUNT_ROWS), {"is_sweep": is_sweep})
            rows, more = await cursor.fetchone() or (0, False)
        taken += int(rows)
        every_s = 0.0
        if not more:
            return taken


def help_on_commit(job_ids: Sequence[int]) -> None:
    """Who submits these looks, after its commit, whether anybody counts: once in so many jobs."""

    def help_if_many() -> None:  # with a name of its own: Django logs by it what a robust hook raises
        help_count(least=HELP_CHANGES)
        tallying.help_tally(least=HELP_CHANGES)

    if job_ids and job_ids[0] // HELP_EVERY_JOBS != (job_ids[-1] + 1) // HELP_EVERY_JOBS:
        transaction.on_commit(help_if_many, robust=True)


def help_count(*, least: int) -> int:
    """Count once, over Django's connection, if at least so many changes wait for it. Returns how many it took."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(load("count_is_due"), {"every_s": 0.0, "least": least})
        is_due, is_sweep, *_ = cursor.fetchone()
        if not is_due:
            return 0
        cursor.execute(load("count", rows=COUNT_ROWS), {"is_sweep": is_sweep})
        taken, _ = cursor.fetchone()
    return int(taken)
