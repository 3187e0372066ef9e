"""A job as its host follows it, in Python: `job.stream()`, `job.wait()`, and both for coroutines.

Owns one connection for each that is followed, for as long as it is, and no thread. LISTEN tells when to look, a look
each POLL_S is the net under it, and the log says what there is. Does not own what a web process shows to many viewers
(live/), nor the job's JSON (representation.py).

Invariant: each event after `after` comes once and in order, whatever becomes of the connection meanwhile. LISTEN stands
only while somebody waits here: a caller who is slow never holds up the database's queue of notifications.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import InterfaceError, OperationalError, connection
from psycopg import AsyncConnection, sql

from llmjobs.conf import conf
from llmjobs.database import DATABASE_GONE, connect_async
from llmjobs.errors import DatabaseUnavailable, JobNotFound, NotAllowed, WaitTimedOut
from llmjobs.events import EVENTS_CHANNEL, LOOK_AT_ALL
from llmjobs.models import Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.representation import job_json
from llmjobs.sql import load
from llmjobs.states import SEQ_EPOCH, TERMINAL, EventType, StreamEvent

POLL_S = 1.0  # the net under LISTEN, which a pooler may swallow
ANSWER_S = 20.0  # a server that does not answer for so long is taken for gone
LEAST_S = 1.0  # it has so long even where the caller would wait for less
GIVE_UP_S = 60.0  # away for so long: a restart or a failover is over by then
RETRY_FIRST_S, RETRY_MOST_S = 0.05, 1.0
PAGE_ROWS, PAGE_BYTES = 500, 1 << 20  # what is read at once, but one event at least

GONE = (*DATABASE_GONE, OSError, TimeoutError)


def stream(job: Job, *, after: int = 0) -> Generator[StreamEvent, None, None]:
    """See Job.stream."""
    _refuse_in_loop("stream", "astream")
    with asyncio.Runner() as runner:
        pages = _pages(job.pk, after)
        try:
            while (page := runner.run(_next(pages))) is not None:
                for event in page.events:
                    yield _shown(job, event)
        except JobNotFound as error:
            raise _not_found(error) from None
        finally:
            runner.run(_close(pages))


async def astream(job: Job, *, after: int = 0) -> AsyncGenerator[StreamEvent, None]:
    """See Job.astream."""
    async with aclosing(_pages(job.pk, after)) as pages:
        async for page in pages:
            for event in page.events:
                yield await sync_to_async(_shown)(job, event) if event.type == EventType.DONE else event


def wait(job: Job, timeout_s: float | None) -> None:
    """See Job.wait."""
    _refuse_in_loop("wait", "await_")
    try:
        asyncio.run(_until_ended(job.pk, timeout_s))
    except JobNotFound as error:
        raise _not_found(error) from None
    _refresh(job)


async def await_(job: Job, timeout_s: float | None) -> None:
    """See Job.await_."""
    await _until_ended(job.pk, timeout_s)
    await sync_to_async(_refresh)(job)


# What comes, page by page.


@dataclass(frozen=True, slots=True)
class _Page:
    events: list[StreamEvent]
    is_last: bool


async def _next(pages: AsyncGenerator[_Page, None]) -> _Page | None:
    return await anext(pages, None)


async def _close(pages: AsyncGenerator[_Page, None]) -> None:
    await pages.aclose()


async def _pages(job_id: int, after: int) -> AsyncGenerator[_Page, None]:
    """Raises JobNotFound before the first; DatabaseUnavailable."""
    line, position, is_known = _Line(job_id), after, False
    try:
        while True:
            page = await line.page(position)
            if page is None and not is_known:
                raise JobNotFound("There is no such job.")
            is_known = True
            if page is not None and page.events:
                await line.mute()
                position = page.events[-1].seq
                yield page
            if page is None or page.is_last:  # None: retention took it
                return
            if not page.events:
                await line.wait(POLL_S)
    finally:
        await line.close()


async def _until_ended(job_id: int, timeout_s: float | None) -> None:
    clock = asyncio.get_running_loop().time
    until = math.inf if timeout_s is None else clock() + timeout_s
    line = _Line(job_id)
    try:
        while True:
            state = await line.state(patience_s=until - clock())
            if state is None:
                raise JobNotFound("There is no such job.")
            if state in TERMINAL:
                return
            if not clock() < until:  # NaN ends it too
                raise WaitTimedOut(f"expected the job to end within {timeout_s:g} s, it is {state}", state=state)
            await line.wait(min(POLL_S, until - clock()))
    finally:
        await line.close()


class _Line:
    """A connection that is opened when it is needed, and again when it broke."""

    def __init__(self, job_id: int) -> None:
        self._job_id = job_id
        self._conn: AsyncConnection[Any] | None = None
        self._is_listening = False

    async def page(self, after: int) -> _Page | None:
        """What comes after that event; None: there is no such job."""
        query = load("follow_job", rows=PAGE_ROWS, bytes=PAGE_BYTES)
        rows = await self._ask(query, {"job_ids": [self._job_id], "positions": [after]})
        if not rows:
            return None
        state, epoch = rows[0][:2]
        events = [StreamEvent(seq, type, json.loads(data)) for _, _, seq, type, data, _ in rows if seq is not None]
        is_end = not events or (events[-1].type == EventType.DONE and events[-1].seq // SEQ_EPOCH == epoch)
        return _Page(events, is_last=state in TERMINAL and is_end)

    async def state(self, *, patience_s: float) -> str | None:
        rows = await self._ask(load("look_at_job"), {"job_id": self._job_id}, patience_s=patience_s)
        return rows[0][0] if rows else None

    async def wait(self, within_s: float) -> None:
        """Until it is woken. The first time it only begins to listen: what came before that is to be read again."""
        try:
            if self._conn is None:
                return
            if not self._is_listening:
                async with asyncio.timeout(ANSWER_S):
                    await self._conn.execute(sql.SQL("listen {}").format(sql.Identifier(EVENTS_CHANNEL)))
                self._is_listening = True
                return
            async with aclosing(self._conn.notifies(timeout=max(within_s, 0.0))) as notices:
                async for notice in notices:
                    if self._is_meant(notice.payload):
                        return
        except GONE:
            await self.close()
            await asyncio.sleep(RETRY_FIRST_S)

    async def mute(self) -> None:
        """The caller has what to do: nothing is to be kept for it meanwhile."""
        if self._conn is None or not self._is_listening:
            return
        self._is_listening = False
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._conn.execute("unlisten *")
        except GONE:
            await self.close()

    async def close(self) -> None:
        conn, self._conn, self._is_listening = self._conn, None, False
        if conn is not None:
            with suppress(*GONE):
                await conn.close()

    def _is_meant(self, payload: str) -> bool:
        entries = payload.split()
        return LOOK_AT_ALL in entries or any(entry.startswith(f"{self._job_id}:") for entry in entries)

    async def _ask(
        self, query: str, params: Mapping[str, Any], *, patience_s: float = GIVE_UP_S
    ) -> list[tuple[Any, ...]]:
        clock = asyncio.get_running_loop().time
        until, pause_s = clock() + min(patience_s, GIVE_UP_S), RETRY_FIRST_S
        while True:
            try:
                async with asyncio.timeout(min(ANSWER_S, max(patience_s, LEAST_S))):
                    if self._conn is None:
                        self._conn = await connect_async()
                    return await (await self._conn.execute(query, params)).fetchall()
            except GONE as error:
                await self.close()
                if clock() + pause_s > until:
                    reason = str(error).strip().partition("\n")[0]
                    raise DatabaseUnavailable(f"expected the job's log, got no answer: {reason}") from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)


# What it is shown as; these two ask over Django's connection.


def _shown(job: Job, event: StreamEvent) -> StreamEvent:
    """The log has only the state that a job ended in; its viewers get the job, or that it was requeued since."""
    if event.type != EventType.DONE:
        return event
    found = _read(job)
    if found is not None and found.epoch == event.seq // SEQ_EPOCH:
        return event._replace(data=job_json(found, base_url=conf.site_url.rstrip("/"), with_place=False))
    note = {"id": str(job.public_id), "object": "job", "status": event.data.get("status")}
    return event._replace(data=note if found is None else note | {"superseded": True})


def _refresh(job: Job) -> None:
    """All of it, with what belongs to it: a coroutine could not ask for that later."""
    found = _read(job)
    if found is None:
        raise JobNotFound("The job has ended, and was removed since.")
    job.__dict__.update(found.__dict__)


def _read(job: Job) -> Job | None:
    """What cut the line has cut this connection too, which Django opens again at the next request only."""
    jobs = Job.objects.select_related(*JOB_RELATED).filter(pk=job.pk)
    try:
        return jobs.first()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block:
            raise
        connection.close()
        return jobs.first()


def _not_found(error: JobNotFound) -> Exception:
    if not connection.in_atomic_block:
        return error
    return NotAllowed(
        "expected a job that is committed, got one that this transaction may have just submitted: nobody else sees it, "
        "and no worker runs it, before the transaction ends. Follow it after that"
    )


def _refuse_in_loop(name: str, other: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise SynchronousOnlyOperation(f"expected {other}() where an event loop runs, got {name}(), which would stop it")
