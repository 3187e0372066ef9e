"""The log as the live layer reads it: statements over asynchronous connections of its own, none of them Django's.

Owns the two connections of a process: one for what is new, one for the history of those who come late, so that a
crowd of newcomers does not hold up those who watch. Does not own positions: callers say where to read from.
Invariant: every read is bounded, in rows and in time.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import django.db
import psycopg
from django.db import connections
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from llmjobs.conf import conf
from llmjobs.sql import load

# What a database that is away, or restarts, looks like from here.
DATABASE_ERRORS = (psycopg.Error, django.db.Error, OSError, TimeoutError)

# What is read of one job at once, besides one event at least: of history for a viewer who comes late, and in one of the
# hub's rounds. Who has more is read again.
PAGE_ROWS, PAGE_BYTES = 500, 1 << 20
ROUND_ROWS, ROUND_BYTES = 100, 1 << 18
SWEEP_ROWS = 100_000  # events looked at in one sweep: about a tenth of a second
RESUME_JOBS = 1_000  # the newest of a client that a feed's replay looks at
READ_WITHIN_S = 20


class LogRow(NamedTuple):
    job_id: int
    seq: int
    type: str
    data: str
    at_ms: int
    is_newest: bool  # nothing came after it when this was read


@dataclass(frozen=True, slots=True)
class Resumed:
    """A job that a feed takes up again after event `position`."""

    id: int
    public_id: str
    position: int


async def connect(dsn: str = "") -> AsyncConnection[TupleRow]:
    """To Django's default database, or to `dsn`; in autocommit. Keep-alives tell a dead peer within a minute."""
    params: dict[str, Any] = {"conninfo": dsn} if dsn else connections["default"].get_connection_params()
    for key in ("cursor_factory", "context", "pool"):  # made for Django's synchronous connections
        params.pop(key, None)
    alive = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 5, "connect_timeout": 10}
    ours = {"application_name": "llmjobs-live", "prepare_threshold": None, **alive}
    return await AsyncConnection.connect(**{**ours, **params, "autocommit": True})


async def connect_to_listen() -> AsyncConnection[TupleRow]:
    return await connect(conf.listen_dsn)


class Reader:
    """One connection, opened on first use and again after it broke; readers wait for each other."""

    def __init__(self) -> None:
        self._connection: AsyncConnection[TupleRow] | None = None
        self._lock = asyncio.Lock()

    async def after(self, positions: Mapping[int, int]) -> list[LogRow]:
        """Of each job what comes after its position, or the beginning of that; by job and seq."""
        return await self._events(positions, load("read_events", rows=ROUND_ROWS, bytes=ROUND_BYTES))

    async def page(self, job_id: int, position: int) -> list[LogRow]:
        return await self._events({job_id: position}, load("read_events", rows=PAGE_ROWS, bytes=PAGE_BYTES))

    async def _events(self, positions: Mapping[int, int], query: str) -> list[LogRow]:
        parameters = {"job_ids": list(positions), "positions": list(positions.values())}
        return [LogRow(*row) for row in await self._fetch(query, parameters)]

    async def public_ids(self, job_ids: Iterable[int]) -> dict[int, str]:
        query = "select id, public_id from llmjobs_job where id = any (%s::bigint[])"
        return {job_id: str(public_id) for job_id, public_id in await self._fetch(query, (list(job_ids),))}

    async def last_event_id(self) -> int:
        ((last,),) = await self._fetch("select coalesce(max(id), 0) from llmjobs_jobevent", ())
        return int(last)

    async def changed(self, low: int, high: int, begun_at: Mapping[int, int]) -> list[tuple[int, int, int]]:
        """(job id, client id, first seq) of the jobs with events of ids above `low`, up to `high`.

        Only of the clients that `begun_at` names, and of these only with events of ids above the one that it gives.
        """
        parameters = {"low": low, "high": high, "client_ids": list(begun_at), "begun_at": list(begun_at.values())}
        return [
            (job_id, client_id, seq) for job_id, client_id, seq in await self._fetch(load("sweep_events"), parameters)
        ]

    async def resumed(self, client_ids: Sequence[int], since_ms: int) -> list[Resumed]:
        parameters = {"client_ids": list(client_ids), "since_ms": since_ms}
        rows = await self._fetch(load("resume_feed", jobs=RESUME_JOBS), parameters)
        return [Resumed(job_id, str(public_id), position) for job_id, public_id, position in rows]

    async def state_and_last_seq(self, job_id: int) -> tuple[str, int] | None:
        rows = await self._fetch(load("look_at_job"), {"job_id": job_id})
        return (rows[0][0], rows[0][1]) if rows else None

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _fetch(self, query: str, parameters: Any) -> list[tuple[Any, ...]]:
        """Raises one of DATABASE_ERRORS; the next call then tries a new connection if this one broke."""
        async with self._lock, asyncio.timeout(READ_WITHIN_S):
            if self._connection is None or self._connection.closed:
                self._connection = await connect()
            cursor = await self._connection.execute(query, parameters)
            return await cursor.fetchall()
