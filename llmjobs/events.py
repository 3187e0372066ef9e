"""The event log's write side, and the wake-ups.

What viewers see is in the log (`JobEvent`); a wake-up only says "there is more, look from here on". It goes out after
the commit and in a transaction of its own: NOTIFY takes a lock over the whole database while it commits. A lost wake-up
costs a poll's length, never an event.

Two channels. `llmjobs_events`, heard by web processes: entries `<job_id>:<client_id>:<first_seq>`, or `*`: look at
everything you watch. `llmjobs_work`, heard by workers: `pool:<id>`, `cancel:<job_id>:<attempt>`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from psycopg import AsyncConnection

from llmjobs.database import prepared_cursor
from llmjobs.models import Job
from llmjobs.sql import load
from llmjobs.states import TERMINAL

EVENTS_CHANNEL = "llmjobs_events"
WORK_CHANNEL = "llmjobs_work"
LOOK_AT_ALL = "*"
PAYLOAD_BYTES_MAX = 7_900  # Postgres takes less than 8,000
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Wake:
    """Job `job_id` of `client_id` has events from `seq` on."""

    job_id: int
    client_id: int
    seq: int

    def __str__(self) -> str:
        return f"{self.job_id}:{self.client_id}:{self.seq}"


@dataclass(frozen=True, slots=True)
class Event:
    """What an attempt has to say; dropped if its lease (job_id, attempt) is not held any more."""

    job_id: int
    attempt: int
    seq: int
    type: str
    data: dict[str, Any]

    def json(self) -> dict[str, Any]:
        """A row for append_events.sql; without `asdict`, which copies what was said."""
        return {
            "job_id": self.job_id,
            "attempt": self.attempt,
            "seq": self.seq,
            "type": self.type,
            "data": self.data,
        }


async def append(conn: AsyncConnection[Any], events: Sequence[Event], *, worker: UUID) -> None:
    rows = json.dumps([event.json() for event in events], ensure_ascii=False)
    await conn.execute(load("append_events"), {"events": rows, "worker": worker})


def payloads(entries: Iterable[object]) -> Iterator[str]:
    """The entries, separated by spaces, in as few payloads as Postgres takes."""
    line = ""
    for entry in map(str, entries):
        if line and len(line) + 1 + len(entry) > PAYLOAD_BYTES_MAX:
            yield line
            line = ""
        line = f"{line} {entry}" if line else entry
    if line:
        yield line


Message = tuple[str, Iterable[object]]  # a channel, and its entries


async def wake(conn: AsyncConnection[Any], *messages: Message) -> None:
    """Wake-ups over a worker's own connection, which must not be inside a transaction."""
    if params := _params(messages):
        await conn.execute(load("notify"), params)


def wake_on_commit(*messages: Message) -> None:
    """Wake-ups from Django's connection, once the caller's transaction has committed; at once if there is none."""

    def send() -> None:
        with prepared_cursor() as cursor:
            cursor.execute(load("notify"), params)

    if params := _params(messages):
        transaction.on_commit(send, robust=True)


def _params(messages: Iterable[Message]) -> dict[str, list[str]]:
    told = [(channel, payload) for channel, entries in messages for payload in payloads(entries)]
    return {"channels": [channel for channel, _ in told], "payloads": [payload for _, payload in told]} if told else {}


Waiter = Callable[[int, float], Awaitable[bool]]
_waiter: Waiter | None = None


def set_waiter(waiter: Waiter) -> None:
    """The live layer tells how to wait without polling; without one, `wait_terminal` polls."""
    global _waiter
    _waiter = waiter


async def wait_terminal(job_id: int, timeout_s: float) -> bool:
    """Whether the job is terminal, asked for until it is or the time is over. Holds no connection while it waits."""
    if _waiter is not None:
        return await _waiter(job_id, timeout_s)
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        state = await Job.objects.filter(id=job_id).values_list("state", flat=True).afirst()
        left_s = deadline - asyncio.get_running_loop().time()
        if state is None or state in TERMINAL or left_s <= 0:
            return state in TERMINAL
        await asyncio.sleep(min(POLL_S, left_s))
