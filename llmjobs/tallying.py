"""Tallying: what triggers on Job and Attempt noted (models/tallies.py) becomes tallies, by the minute and coarser.

Owns the fold and how long tallies are kept; does not own what is read from them (`tallies.py`). One at a time folds,
the others skip their turn, and nobody waits for it. Invariant: a change is tallied once, in the transaction that
deletes it. Without workers a submitter helps once in a while (`counts.py`), so that changes do not pile up.
"""

from typing import Any

from django.db import connection, transaction
from psycopg import AsyncConnection

from llmjobs.histograms import BOUNDS_S
from llmjobs.sql import load

TALLY_EVERY_S = 5.0  # each worker asks so often, and all of them together fold so often
TALLY_ROWS = 1_000  # changes that one fold takes, each of up to some dozen jobs: tens of milliseconds
KEPT = {"minutes_s": 26 * 3_600.0, "ten_minutes_s": 8 * 86_400.0, "days_s": 400 * 86_400.0}
FORGOTTEN_ROWS = 1_000  # of a grain at once: some dozen come a minute, so a backlog of them is soon gone


async def tally(conn: AsyncConnection[Any]) -> int:
    """Fold in everything that happened, unless another does or just did. Returns how many changes it took."""
    taken, every_s = 0, TALLY_EVERY_S * 0.9  # who asks each five seconds shall not come a moment too early
    while True:
        async with conn.transaction():
            due = await conn.execute(load("tally_is_due"), {"every_s": every_s, "least": 0})
            is_due, is_sweep, *_ = await due.fetchone() or (False, False)
            if not is_due:
                return taken
            cursor = await conn.execute(load("tally", rows=TALLY_ROWS), _params(is_sweep))
            rows, more = await cursor.fetchone() or (0, False)
            if is_sweep:
                await conn.execute(load("tally_forget", rows=FORGOTTEN_ROWS), KEPT)
        taken += int(rows)
        every_s = 0.0
        if not more:
            return taken


def help_tally(*, least: int = 0) -> int:
    """Fold once, over Django's connection, if at least so many changes wait for it. Returns how many it took."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(load("tally_is_due"), {"every_s": 0.0, "least": least})
        is_due, is_sweep, *_ = cursor.fetchone()
        if not is_due:
            return 0
        cursor.execute(load("tally", rows=TALLY_ROWS), _params(is_sweep))
        taken, _ = cursor.fetchone()
    return int(taken)


def _params(is_sweep: bool) -> dict[str, Any]:
    return {"is_sweep": is_sweep, "bounds": list(BOUNDS_S)}
