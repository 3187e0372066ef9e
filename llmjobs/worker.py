"""A worker: one asyncio process with N slots. Claim, dispatch, drain.

Owns the slots and the leases it believes to hold. What is written while jobs run is `writer.py`'s, one attempt is
`execution.py`'s, the duties are `maintenance.py`'s, the sign of life is `heartbeat.py`'s. A slot is free after the
settle of its job has committed, never before.
"""

import asyncio
import gc
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection

from llmjobs import __version__, queue
from llmjobs.conf import conf
from llmjobs.coroutines import cancelled, first_of
from llmjobs.database import DATABASE_GONE, async_pool
from llmjobs.deliveries import Deliveries
from llmjobs.execution import API_KEY_MISSING, Attempt, Providers, settlement
from llmjobs.heartbeat import Beat, Heartbeat
from llmjobs.leases import Claimed, handed_back
from llmjobs.maintenance import Duties
from llmjobs.outcomes import Kind, Outcome
from llmjobs.pacing import DatabaseClock, Lateness
from llmjobs.providers.openai import OpenAIProviders
from llmjobs.rotation import Rotation
from llmjobs.signals import Signal
from llmjobs.sql import load
from llmjobs.states import Size
from llmjobs.writer import Writer

logger = logging.getLogger("llmjobs.worker")

POOL_CONNECTIONS = 11  # writer, wake-ups, poll, deliveries, the duties; most of them are used now and then
TICK_S = 0.5
KEYS_MISSED_MAX = 2  # so often a worker that lacks a key keeps it to itself


@dataclass(frozen=True, slots=True)
class Options:
    concurrency: int = 64
    until_empty: bool = False
    pools: dict[str, int] = field(default_factory=dict)  # name: id of those it serves; empty: all
    tiers: dict[str, int] = field(default_factory=dict)
    short_share: float = 0.2
    max_jobs: int | None = None
    drain_timeout_s: float | None = None  # None: as long as the longest timeout_s that is running


@dataclass(slots=True)
class Report:
    """What a worker did, said when it stops."""

    claimed: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    released: int = 0
    lease_lost: int = 0


class Worker:
    """`providers`: who makes its calls; None for the OpenAI-compatible ones that the catalogue names."""

    def __init__(self, options: Options, providers: Providers | None = None) -> None:
        self.id = uuid.uuid4()
        self.options = options
        self.report = Report()
        self._attempts: dict[int, Attempt] = {}  # by job id: claimed, and not yet settled
        self._tasks: set[asyncio.Task[None]] = set()
        self._orphans: set[tuple[int, int]] = set()  # held by the table, unknown here, at the last beat
        self._idle = asyncio.Event()  # no attempt is running
        self._idle.set()
        self._stop = asyncio.Event()
        self._signals = 0
        self._providers: Providers = providers or OpenAIProviders(calls_max=options.concurrency)
        self._clock, self._lateness = DatabaseClock(), Lateness()
        self._writer = Writer(worker=self.id, connect=self._connect, ended=self._ended)
        self._long_waiting: set[int] = set()  # pools that were asked for short jobs only
        self._account_waiting: dict[int, None] = {}  # pools whose account ran all that it may, the longest wait first
        self._keys_missed: dict[int, int] = {}  # by pool, how often its key was not there
        self._is_claiming = False  # what the table says is held may be this claim's, not known here yet
        self._pool_ids = list(options.pools.values()) or None
        self._tier_ids = list(options.tiers.values()) or None
        self._rotation = Rotation(connect=self._connect, only=self._pool_ids, cancelled=self._cancel)
        self._deliveries = Deliveries(self._connect)

    async def run(self) -> Report:
        """Until it is stopped, or empty where that was asked for. Raises one of DATABASE_GONE if it can't begin."""
        self._loop = asyncio.get_running_loop()
        gc.freeze()  # what was imported: each full collection walked it, and stopped all streams for 100 ms
        async with self._open_pool():
            await self._register()
            heartbeat = self._heartbeat = Heartbeat(worker=self.id, tell=self._tell)
            heartbeat.start()
            writer = asyncio.create_task(self._writer.run())
            duties = Duties(
                connect=self._connect,
                moved=self._writer.wake,
                poke=self._rotation.poke,
                may_reclaim=heartbeat.may_judge,
            )
            side = [
                asyncio.create_task(task)
                for task in (
                    *duties.all(), self._deliveries.run(), self._rotation.listen(), self._rotation.poll(), self._tick()
                )
            ]  # fmt: skip
            claims = asyncio.create_task(self._claims())
            try:
                await first_of(self._stop.wait(), claims, writer, *side)
                await self._drain(claims)
            finally:
                await cancelled(claims, *side)
                self._writer.close()
                await writer
                await self._deliveries.close()
                await asyncio.to_thread(heartbeat.stop)
                await self._unregister()
                await self._providers.close()
        return self.report

    def stop(self) -> None:
        """Drain; the second time, release what runs at once."""
        self._signals += 1
        self._stop.set()
        self._rotation.poke()
        if self._signals > 1:
            self._release_all()
            self._deliveries.abort()

    # Claiming.

    async def _claims(self) -> None:
        while not self._is_done():
            if self._free() <= 0 or not self._rotation:
                if self.options.until_empty and not self._attempts and await self._is_empty():
                    return
                await self._rotation.wait()
                continue
            pool_id = self._rotation.next()
            try:
                await self._claim(pool_id)
            except psycopg.Error as error:
                reason = str(error).strip().partition("\n")[0]
                if isinstance(error, DATABASE_GONE):
                    logger.warning("event=claim_waits reason=%r", reason)
                else:  # one pool's fault must not end what all others run
                    logger.error("event=claim_failed pool=%s reason=%r", pool_id, reason)
                self._rotation.add([pool_id])
                await asyncio.sleep(conf.poll_s)

    async def _claim(self, pool_id: int) -> None:
        """Claim from one pool until it has no more, or a turn's worth; then it goes to the end of the rotation."""
        exclude: list[int] = []
        while not self._is_done() and (count := self._wanted()) > 0:
            short_only = self._long_room() <= 0
            if not short_only:
                count = min(count, self._long_room())
            self._is_claiming, asked_at = True, time.monotonic()
            try:
                async with self._claim_connection.connection() as conn:
                    claim = await queue.claim(
                        conn,
                        worker=self.id,
                        pool_id=pool_id,
                        count=count,
                        tiers=self._tier_ids,
                        short_only=short_only,
                        exclude=exclude,
                        jitter_s=self._lateness.at(time.monotonic()),
                    )
            finally:
                self._is_claiming = False
            self._clock.observe(claim.clock, asked_at, time.monotonic())
            if claim.opens_in_s is None:
                self._rotation.open(pool_id)
            else:
                self._rotation.close(pool_id, claim.opens_in_s)
            if claim.is_account_full:
                self._account_waiting.setdefault(pool_id)
            if claim.wake_in_s is not None:
                self._rotation.wake(pool_id, claim.wake_in_s)
            for job in claim.jobs:
                self._start(job)
            self._writer.wake(claim.expired)
            exclude += claim.skipped
            if len(claim.jobs) == count:
                self._rotation.add([pool_id])
                return
            if not claim.again or len(exclude) > 1_000:
                if short_only:
                    self._long_waiting.add(pool_id)
                return

    def _wanted(self) -> int:
        left = conf.claim_batch_max if self.options.max_jobs is None else self.options.max_jobs - self.report.claimed
        return min(self._free(), conf.claim_batch_max, left) if self._is_healthy() else 0

    def _free(self) -> int:
        return self.options.concurrency - len(self._attempts)

    def _long_room(self) -> int:
        """Slots that a long job may take; the others are kept for short ones."""
        kept = int(self.options.concurrency * self.options.short_share)
        long_count = sum(1 for attempt in self._attempts.values() if attempt.job.size == Size.LONG)
        return self.options.concurrency - kept - long_count

    def _is_done(self) -> bool:
        return self._stop.is_set() or (
            self.options.max_jobs is not None and self.report.claimed >= self.options.max_jobs
        )

    def _is_healthy(self) -> bool:
        """Whether its heartbeat is fresh enough that it may start calls."""
        return time.monotonic() - self._heartbeat.beat_at < conf.lease_s / 2

    def _start(self, job: Claimed) -> None:
        attempt = Attempt(
            job,
            has_news=self._writer.has_news,
            hears=self._writer.hear,
            send_at=self._clock.here(job.claimed_at + job.send_in_s),
            lateness=self._lateness,
            worker=self.id,
        )
        if self._signals > 1:
            attempt.stop(Kind.RELEASED)
        self._attempts[job.id] = attempt
        self._idle.clear()
        self.report.claimed += 1
        task = asyncio.create_task(self._run(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, attempt: Attempt) -> None:
        outcome = await attempt.run(self._providers)
        if outcome.error is not None and outcome.error.code == API_KEY_MISSING:
            self._miss_key(attempt, outcome)
        if attempt.is_lease_lost:
            self._ended(attempt, None)
        else:
            self._writer.settle(attempt, settlement(attempt, outcome))

    def _miss_key(self, attempt: Attempt, outcome: Outcome) -> None:
        """It says nothing about the provider, nor the other workers: leave its pool to them for a while.

        Where it happens again and again it is told: if nobody has the key, nobody answers between, and operators hear.
        """
        pool_id = attempt.job.pool_id
        if not self._rotation.leave(pool_id, conf.probe_s):
            return
        logger.error("event=api_key_missing pool=%s variable=%s", attempt.job.model, attempt.job.api_key_env)
        self._keys_missed[pool_id] = self._keys_missed.get(pool_id, 0) + 1
        if self._keys_missed[pool_id] >= KEYS_MISSED_MAX and outcome.error is not None:
            self._writer.hear(attempt, Signal(time.monotonic(), auth=1, words=outcome.error.message))

    def _ended(self, attempt: Attempt, state: str | None) -> None:
        """Its settle has committed, or its lease was lost: the slot is free."""
        if self._attempts.get(attempt.job.id) is not attempt:
            return
        del self._attempts[attempt.job.id]
        attempt.trace.end(state)
        if state is None:
            self.report.lease_lost += 1
            self._heartbeat.lease_lost_count += 1
            logger.warning("event=lease_lost job=%s attempt=%s", attempt.job.public_id, attempt.job.attempt)
        else:
            self.report.ended[state] = self.report.ended.get(state, 0) + 1
            self.report.released += state == "queued"
        if not self._attempts:
            self._idle.set()
        # Its end may have opened its pool: a limit of running jobs, or a slot for a long one.
        # Its own comes last: what it left goes to those that wait for it.
        self._rotation.add([*self._account_waiting, *self._long_waiting, attempt.job.pool_id])
        self._account_waiting.clear()
        self._long_waiting.clear()

    async def _is_empty(self) -> bool:
        """Whether nothing is queued, running or waiting for a retry, in what this worker serves."""
        try:
            async with self._connect() as conn:
                row = await (
                    await conn.execute(load("is_empty"), {"pools": self._pool_ids, "tiers": self._tier_ids})
                ).fetchone()
        except DATABASE_GONE:
            return False
        return bool(row and row[0])

    # What others tell: a cancel, and the heartbeat.

    def _cancel(self, job_id: int, number: int) -> None:
        attempt = self._attempts.get(job_id)
        if attempt is not None and attempt.job.attempt == number:
            attempt.stop(Kind.CANCELLED)

    def _tell(self, beat: Beat) -> None:
        """Called in the heartbeat's thread."""
        self._loop.call_soon_threadsafe(self._compare, beat)

    def _compare(self, beat: Beat) -> None:
        """What the table says against what this worker believes."""
        held = {(job_id, number) for job_id, number, _ in beat.held}
        for job_id, number, is_cancelled in beat.held:
            if is_cancelled:
                self._cancel(job_id, number)
        for job_id, attempt in list(self._attempts.items()):
            is_running = attempt.claimed_at < beat.began_at and not attempt.is_ended
            if is_running and (job_id, attempt.job.attempt) not in held:
                attempt.lose()
        known = {(job_id, attempt.job.attempt) for job_id, attempt in self._attempts.items()}
        unknown = held - known
        if not self._is_claiming and (orphans := unknown & self._orphans):
            self._tasks.add(task := asyncio.create_task(self._release_orphans(orphans)))
            task.add_done_callback(self._tasks.discard)
        self._orphans = unknown
        if beat.is_draining and not self._stop.is_set():
            logger.info("event=drain_asked")
            self._stop.set()

    async def _release_orphans(self, orphans: set[tuple[int, int]]) -> None:
        """A claim whose commit was not acknowledged left jobs that nobody runs: hand them back."""
        logger.warning("event=orphans_released jobs=%s", len(orphans))
        settlements = [handed_back(job_id, number) for job_id, number in sorted(orphans)]
        try:
            async with self._connect() as conn:
                _, wakes = await queue.settle(conn, settlements, worker=self.id)
            self._writer.wake(wakes)
        except DATABASE_GONE as error:  # the next beat finds them again
            logger.warning("event=orphans_wait reason=%r", str(error).strip().partition("\n")[0])

    async def _tick(self) -> None:
        """Shows the heartbeat that the loop is alive; stops the calls of a worker that lost its way to Postgres."""
        while True:
            self._heartbeat.loop_ticked_at = time.monotonic()
            late_s = time.monotonic() - self._heartbeat.beat_at
            # While the server is down nobody reclaims, until a lease's length after its start: keep the paid calls.
            if late_s > conf.lease_s - conf.heartbeat_s and not self._heartbeat.is_server_down:
                for attempt in list(self._attempts.values()):
                    if not attempt.is_ended:
                        attempt.lose()
            await asyncio.sleep(TICK_S)

    # Drain.

    async def _drain(self, claims: asyncio.Task[None]) -> None:
        """Let what runs end, within the time allowed; hand the rest back."""
        began_at, was_stopped = time.monotonic(), self._stop.is_set()
        self._stop.set()
        self._rotation.poke()
        await asyncio.gather(claims, return_exceptions=True)  # not cancelled: its commit may be on its way
        if self._attempts:
            timeout_s = self.options.drain_timeout_s
            if timeout_s is None:
                timeout_s = max(attempt.job.timeout_s for attempt in self._attempts.values())
            logger.info("event=drain running=%s timeout_s=%.0f", len(self._attempts), timeout_s)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                self._release_all()
                await self._idle.wait()
        await self._finish_deliveries(began_at, was_stopped=was_stopped)

    async def _finish_deliveries(self, began_at: float, *, was_stopped: bool) -> None:
        """What is being sent may end, in the time that is left. Who ends by itself tells of its jobs first."""
        begins_until = time.monotonic() + (0 if was_stopped else conf.webhook_timeout_s)
        ends_at = begins_until + conf.webhook_timeout_s
        if self.options.drain_timeout_s is not None:
            ends_at = min(ends_at, began_at + self.options.drain_timeout_s)
        await self._deliveries.finish(
            within_s=max(0.0, ends_at - time.monotonic()),
            may_begin=lambda: time.monotonic() < begins_until and not self._signals,
        )

    def _release_all(self) -> None:
        self._writer.hurry()
        for attempt in list(self._attempts.values()):
            attempt.stop(Kind.RELEASED)

    # Connections, and the worker's own row.

    @asynccontextmanager
    async def _open_pool(self) -> AsyncIterator[None]:
        self._connections = async_pool(min_size=2, max_size=POOL_CONNECTIONS)
        # The claims have one of their own. What is large in a claim, the texts that a session has not prepared yet,
        # goes out once then: a worker that freezes meanwhile holds the turnstile until its transaction's time-out.
        self._claim_connection = async_pool(min_size=1, max_size=1)
        async with self._connections, self._claim_connection:
            yield

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._connections.connection() as conn:
            yield conn

    async def _register(self) -> None:
        async with self._connect() as conn:
            await conn.execute(
                load("register_worker"),
                {
                    "id": self.id, "host": socket.gethostname()[:255], "pid": os.getpid(), "version": __version__,
                    "slots": self.options.concurrency, "pools": list(self.options.pools),
                    "tiers": list(self.options.tiers),
                },
            )  # fmt: skip

    async def _unregister(self) -> None:
        try:
            async with self._connect() as conn:
                await conn.execute(
                    "update llmjobs_worker set stopped_at = statement_timestamp() where id = %s", [self.id]
                )
        except DATABASE_GONE:
            pass  # its lease ends by itself
