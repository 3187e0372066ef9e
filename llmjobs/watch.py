"""The watch: looks every some seconds whether something is wrong, and opens and closes incidents by that.

Owns what is looked at, how often, and that a look costs little. Does not own what counts as wrong (findings.py), nor
who is told (incidents.py), nor breakers, which the fold opens. One process of all looks at a time, whichever asks
first: a worker by its duty, a web process while an operator looks (live/alarms.py), `manage.py watchqueue`.

    look(conn)   over an asynchronous connection    look_here()   over Django's own

Invariant: nothing flaps. What opens an incident has lasted by its very definition (a wait, a window, an age), and it
closes once it was not seen for `conf.alert_clear_s`. A check that takes too long is left out: what is open of its kinds
stays as it is.
"""

import json
import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import psycopg
from django.db import OperationalError, connection, transaction
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable, QueryCanceled
from psycopg.rows import dict_row

from llmjobs import findings
from llmjobs.conf import conf
from llmjobs.findings import Finding, Open, Row, Rows
from llmjobs.sql import load

logger = logging.getLogger("llmjobs.watch")

MOST_MS = 2_000  # of one check
SAMPLE_EVERY_S = 15.0  # as samples.py has it
ROWS = {  # the most that a check looks at
    "watch_waiting": {"rows": 2_000, "lanes": 2_000}, "watch_dead_letters": {"rows": 10_000},
    "watch_webhooks": {"rows": 2_000}, "watch_snapshots": {"rows": 3}, "watch_budgets": {"rows": 10_000},
}  # fmt: skip


class Looked(NamedTuple):
    """What a look changed."""

    opened: int
    closed: int


@dataclass(frozen=True, slots=True)
class Check:
    """`found` decides by the rows of `statement` and by what is open already."""

    kinds: tuple[str, ...]
    statement: str
    params: Callable[[], Row]
    found: Callable[[Rows, Open], Iterable[Finding]]
    is_slow: bool = False  # once a minute is enough


def _waiting_params() -> Row:
    return {
        "target_s": conf.backlog_target_s, "no_worker_s": conf.alert_no_worker_s, "lease_s": conf.lease_s,
        "stay": findings.STAYS,
    }  # fmt: skip


CHECKS = (
    Check(
        ("backlog", "no_worker"),
        "watch_waiting",
        _waiting_params,
        findings.waiting,
    ),
    Check(("claims_paused",), "watch_claims", dict, findings.claims_paused),
    Check(
        ("blocked",),
        "watch_blocked",
        lambda: {"for_s": conf.alert_blocked_s, "sample_s": SAMPLE_EVERY_S},
        findings.blocked,
    ),
    Check(("dead_letters",), "watch_dead_letters", dict, findings.dead_letters),
    Check(("webhooks",), "watch_webhooks", lambda: {"tries": findings.WEBHOOK_TRIES}, findings.webhooks),
    Check(("snapshot",), "watch_snapshots", lambda: {"for_s": conf.alert_snapshot_s}, findings.snapshots),
    Check(("budget",), "watch_budgets", lambda: {"least": findings.BUDGET_LEAST}, findings.budgets, is_slow=True),
)


# One look, whoever carries it out.


class Ask(NamedTuple):
    statement: str
    params: Row
    may_fail: bool = False  # its rows are None then


Look = Generator[Ask, Rows | None, Looked | None]


def _look(every_s: float) -> Look:
    due = yield Ask("watch_is_due", {"every_s": every_s, "most_ms": MOST_MS})
    if not due or not due[0]["is_due"]:
        return None
    is_open = frozenset(tuple(row.values()) for row in (yield Ask("watch_open", {})) or ())
    found: list[Finding] = []
    looked: list[str] = []
    for check in CHECKS:
        if check.is_slow and not due[0]["is_full"]:
            continue
        rows = yield Ask(check.statement, check.params(), may_fail=True)
        if rows is not None:
            looked += check.kinds
            found += check.found(rows, is_open)
    params = {
        "found": json.dumps([asdict(finding) for finding in found]), "looked": looked,
        "clear_s": conf.alert_clear_s, "past_s": conf.alert_snapshot_s,
    }  # fmt: skip
    changed = yield Ask("watch_note", params)
    return Looked(changed[0]["opened"], changed[0]["closed"]) if changed else None


async def look(conn: AsyncConnection[Any], *, every_s: float | None = None) -> Looked | None:
    """None: another looks, or did less than `every_s` ago (conf.watch_every_s, where that is not said)."""
    steps = _look(_pace_s(every_s))
    rows: Rows | None = None
    async with conn.transaction():
        while True:
            try:
                ask = steps.send(rows)
            except StopIteration as end:
                return end.value
            try:
                async with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
                    await cursor.execute(_text(ask), ask.params)
                    rows = await cursor.fetchall()
            except (QueryCanceled, LockNotAvailable):
                _left_out(ask)
                rows = None


def look_here(*, every_s: float | None = None) -> Looked | None:
    """The same over Django's connection, in autocommit: inside a caller's transaction nobody looks."""
    if connection.in_atomic_block:
        return None
    steps = _look(_pace_s(every_s))
    rows: Rows | None = None
    with transaction.atomic():
        while True:
            try:
                ask = steps.send(rows)
            except StopIteration as end:
                return end.value
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(_text(ask), ask.params)
                    names = [column.name for column in cursor.description]
                    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            except OperationalError as error:
                if not isinstance(error.__cause__, QueryCanceled | LockNotAvailable):
                    raise
                _left_out(ask)
                rows = None


def _pace_s(every_s: float | None) -> float:
    """Who asks every some seconds shall not come a moment too early."""
    return conf.watch_every_s * 0.9 if every_s is None else every_s


def _text(ask: Ask) -> str:
    return load(ask.statement, **ROWS.get(ask.statement, {}))


def _left_out(ask: Ask) -> None:
    if not ask.may_fail:
        raise psycopg.OperationalError(f"{ask.statement} took longer than {MOST_MS} ms")
    logger.warning("event=check_left_out check=%s most_ms=%s", ask.statement, MOST_MS)
