"""What a worker writes while its jobs run: events and settlements, of all its jobs together, in ticks.

One transaction in flight a worker: an event's number never appears after a higher one. A tick waits for nothing when
the one before is long ago, so a first token is seen at once; under load it gathers, until it has a whole batch of
settlements. The last events of an attempt and its settlement go in one transaction; the wake-ups go out after it, while
the next one is on its way. When Postgres is gone the batch is kept and sent again: nothing is lost, and sending twice
is harmless.

A job with a handler of the host's has its last events written so, and then its end by itself (host_calls.py): nothing
else waits for the host's code. Where that fails it is settled like all others.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from llmjobs import queue
from llmjobs.conf import conf
from llmjobs.database import DATABASE_GONE, Connect
from llmjobs.events import EVENTS_CHANNEL, Event, Wake, append, wake
from llmjobs.execution import Attempt
from llmjobs.host_calls import HandledSettles, Settled
from llmjobs.leases import Settlement
from llmjobs.signals import Signal, merged
from llmjobs.sql import load
from llmjobs.states import TERMINAL, State

logger = logging.getLogger("llmjobs.worker")

Ended = Callable[[Attempt, str | None], None]  # the new state, or None for a lost lease
RETRY_S = 0.25
PATIENCE_S = 5.0  # in a hurry, with a row that somebody holds locked


@dataclass(frozen=True, slots=True)
class Heard:
    """What a pool's provider said to calls of this worker. `since`: their latest claim, by the database's clock."""

    client_id: int
    signal: Signal
    since: float

    def and_then(self, other: "Heard") -> "Heard":
        return Heard(self.client_id, merged(self.signal, other.signal), max(self.since, other.since))

    def row(self, pool_id: int, now: float) -> dict[str, Any]:
        """For report.sql."""
        said = self.signal.json(now)
        return {
            "pool_id": pool_id, "client_id": self.client_id, "ago_s": said.pop("ago_s"),
            "wait_s": said.pop("wait_s", None), "signal": said | {"since": self.since},
        }  # fmt: skip


NOTHING_HEARD: Mapping[int, Heard] = {}


class Writer:
    def __init__(self, *, worker: UUID, connect: Connect, ended: Ended) -> None:
        self._worker, self._connect, self._ended = worker, connect, ended
        self._batch_max = conf.settle_batch_max
        self._talking: dict[int, Attempt] = {}  # by job id: those with something to say
        self._settling: list[tuple[Attempt, Settlement]] = []
        self._ending: list[tuple[Attempt, Settlement]] = []  # with a handler: each by itself, after a tick
        self._handled = HandledSettles(worker=worker, connect=connect)
        self._later_count = 0  # settlements that wait for a row
        self._given_up_at: float | None = None  # of time.monotonic(): in a hurry these are waited for until then
        self._wakes: list[Wake] = []  # of others' verbs, to go out with the next tick
        self._heard: dict[int, Heard] = {}  # by pool: what providers said
        self._work = asyncio.Event()
        self._full = asyncio.Event()  # a whole batch of settlements: there is nothing to gather
        self._telling: asyncio.Task[None] | None = None  # the wake-ups of the tick before
        self._written_at = 0.0
        self.is_closing = False

    def has_news(self, attempt: Attempt) -> None:
        self._talking[attempt.job.id] = attempt
        self._work.set()

    def settle(self, attempt: Attempt, settlement: Settlement) -> None:
        """The slot is free when `ended` is called, after the commit."""
        has_handler = attempt.job.has_handler and settlement.state in TERMINAL
        (self._ending if has_handler else self._settling).append((attempt, settlement))
        self._work.set()
        if len(self._settling) >= self._batch_max:
            self._full.set()

    def hear(self, attempt: Attempt, signal: Signal) -> None:
        """What a provider said beside its answer: told to all workers with the next tick."""
        heard = Heard(attempt.job.client_id, signal, attempt.job.claimed_at)
        before = self._heard.get(attempt.job.pool_id)
        self._heard[attempt.job.pool_id] = heard if before is None else before.and_then(heard)
        self._work.set()

    def wake(self, wakes: list[Wake]) -> None:
        self._wakes += wakes
        if wakes:
            self._work.set()

    def hurry(self) -> None:
        """Wait for no handler any more: they are called later, by whoever runs then."""
        self._handled.hurry()
        self._given_up_at = self._given_up_at or time.monotonic() + PATIENCE_S

    def close(self) -> None:
        """Write what is left, then end."""
        self.hurry()
        self.is_closing = True
        self._work.set()

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        self._batch_max = conf.settle_batch_max
        while True:
            await self._work.wait()
            if self.is_closing and not self._has_work():
                if self._later_count:
                    self._work.clear()
                    continue
                if self._handled.is_idle:
                    break
                await self._handled.idle()  # what they leave is settled without them
                continue
            tick_ms = conf.settle_tick_ms if self._settling or self._ending else conf.event_tick_ms
            await self._gather(self._written_at + tick_ms / 1_000 - clock())
            self._work.clear()
            await self._write()
            self._written_at = clock()
            if self._has_work() or self.is_closing:
                self._work.set()
        self._handled.close()
        if self._telling is not None:
            await self._telling

    def _has_work(self) -> bool:
        return bool(self._settling or self._ending or self._talking or self._wakes or self._heard)

    async def _gather(self, for_s: float) -> None:
        """Until the tick, or until there is a whole batch."""
        if for_s > 0 and len(self._settling) < self._batch_max:
            self._full.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(for_s):
                    await self._full.wait()

    async def _write(self) -> None:
        batch, self._settling = self._settling[: self._batch_max], self._settling[self._batch_max :]
        ending, self._ending = self._ending, []
        talking, self._talking = self._talking, {}
        wakes, self._wakes = self._wakes, []
        heard, self._heard = self._heard, {}
        events: list[Event] = []
        responses: list[dict[str, Any]] = []
        for attempt in talking.values():
            if response_id := attempt.take_response_id():
                lease = {"job_id": attempt.job.id, "number": attempt.job.attempt}
                responses.append(lease | {"response_id": response_id})
            if news := attempt.take_events():
                events += news
                wakes.append(Wake(attempt.job.id, attempt.job.client_id, news[0].seq))
        settled = [settlement for _, settlement in batch]
        try:
            states, more = await self._send(events, settled, heard, responses)
        except psycopg.Error as error:
            logger.error("event=write_refused settlements=%s reason=%s", len(settled), _line(error))
            states, more = await self._send_singly(events, settled, heard, responses)
        for attempt, settlement in batch:
            if (state := states.get(attempt.job.id)) == queue.BUSY:
                self._settle_later(attempt, settlement)
            else:
                self._ended(attempt, state)
        for attempt, settlement in ending:  # its last words have committed: none comes after its end
            done = partial(self._end, attempt, settlement)
            self._handled.settle(attempt.job, attempt.claimed_at, settlement, done)
        if self._telling is not None:
            await self._telling
        self._telling = asyncio.create_task(self._notify(wakes + more)) if wakes or more else None

    def _settle_later(self, attempt: Attempt, settlement: Settlement) -> None:
        """Somebody's open transaction holds its row: looked at now and then, and in a hurry not for ever."""
        if self._given_up_at is not None and time.monotonic() > self._given_up_at:
            logger.error("event=settle_given_up job=%s", attempt.job.public_id)  # its lease ends, and it is taken back
            self._ended(attempt, None)
            return

        def again() -> None:
            self._later_count -= 1
            self._settling.append((attempt, settlement))
            self._work.set()

        self._later_count += 1
        asyncio.get_running_loop().call_later(RETRY_S, again)

    def _end(self, attempt: Attempt, settlement: Settlement, settled: Settled) -> None:
        """Its handler's transaction has committed, or it is settled without."""
        if settled is None:
            self._settling.append((attempt, settlement))
            self._work.set()
        else:
            state, wakes = settled
            self._ended(attempt, state)
            self.wake(wakes)

    async def _send(
        self,
        events: list[Event],
        settled: list[Settlement],
        heard: Mapping[int, Heard] = NOTHING_HEARD,
        responses: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[dict[int, str], list[Wake]]:
        """Waits for as long as Postgres is away. Raises psycopg.Error for what it refuses."""
        while True:
            signals = [said.row(pool_id, time.monotonic()) for pool_id, said in heard.items()]
            try:
                async with self._connect() as conn:
                    if responses:  # first: what was said of them may be the last that is heard of this worker
                        await self._note(conn, responses)
                    if settled:
                        return await queue.settle(conn, settled, worker=self._worker, events=events, signals=signals)
                    if signals:
                        await queue.report(conn, signals)
                    if events:
                        await append(conn, events, worker=self._worker)
                    return {}, []
            except DATABASE_GONE as error:
                words = "event=write_waits settlements=%s events=%s reason=%s"
                logger.warning(words, len(settled), len(events), _line(error))
                await asyncio.sleep(RETRY_S)

    async def _note(self, conn: AsyncConnection[Any], responses: Sequence[Mapping[str, Any]]) -> None:
        """By which ids a later attempt finds what goes on at the providers."""
        await conn.execute(load("note_response"), {"responses": json.dumps(responses), "worker": self._worker})

    async def _send_singly(
        self,
        events: list[Event],
        settled: list[Settlement],
        heard: Mapping[int, Heard],
        responses: Sequence[Mapping[str, Any]],
    ) -> tuple[dict[int, str], list[Wake]]:
        """Postgres refused something in the batch: find it, and end that job alone as dead, without its answer."""
        states: dict[int, str] = {}
        wakes: list[Wake] = []
        try:
            await self._send([], [], heard)
        except psycopg.Error as error:
            logger.error("event=signal_refused pools=%s reason=%s", sorted(heard), _line(error))
        try:
            await self._send([], [], responses=responses)
        except psycopg.Error as error:
            logger.error("event=response_refused count=%s reason=%s", len(responses), _line(error))
        for event in events:
            try:
                await self._send([event], [])
            except psycopg.Error as error:
                logger.error("event=event_refused job=%s seq=%s reason=%s", event.job_id, event.seq, _line(error))
        for settlement in settled:
            try:
                state, more = await self._send([], [settlement])
            except psycopg.Error as error:
                try:
                    state, more = await self._send([], [_without_answer(settlement, error)])
                except psycopg.Error as refused:  # its lease ends, and it is taken back; the others go on
                    logger.error("event=settle_refused job=%s reason=%s", settlement.job_id, _line(refused))
                    continue
            states |= state
            wakes += more
        return states, wakes

    async def _notify(self, wakes: list[Wake]) -> None:
        try:
            async with self._connect() as conn:
                await wake(conn, (EVENTS_CHANNEL, wakes))
        except psycopg.Error as error:  # viewers poll underneath
            logger.warning("event=wake_lost count=%s reason=%s", len(wakes), _line(error))


def _without_answer(settlement: Settlement, error: psycopg.Error) -> Settlement:
    words = f"Postgres refused the answer ({type(error).__name__}): dead-lettered without it."
    return replace(
        settlement, state=State.DEAD, outcome="unrecognised", is_failure=True, decision=words, error_code="unstorable",
        error_message=words, error_class="unknown", usage=None, output=None, output_text="", input_tokens=None,
        output_tokens=None, cost=None, cost_usd=None,
    )  # fmt: skip


def _line(error: BaseException) -> str:
    return repr(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
