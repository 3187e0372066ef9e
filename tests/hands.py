"""A worker's verbs, by hand: without slots, loops or a provider, one at a time, each when the test says so.

A Hand has a row in Worker and a connection of its own, so that its leases are as real as a worker's. Threads
may have a Hand each.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar
from uuid import UUID

from psycopg import AsyncConnection

from llmjobs import handlers, queue
from llmjobs.database import dsn
from llmjobs.events import Event, Wake, append
from llmjobs.folding import fold
from llmjobs.models import Client, Job, Model, Worker
from llmjobs.queue import Claim, Claimed, Settlement
from llmjobs.retention import Walk
from llmjobs.states import State
from llmjobs.submissions import parse
from tests.factories import make_worker

T = TypeVar("T")

OUTCOMES = {
    State.COMPLETED: "completed",
    State.FAILED: "deterministic",
    State.DEAD: "unrecognised",
    State.SCHEDULED: "unknown",
    State.CANCELLED: "cancelled",
    State.QUEUED: "released",
}
SETTLEMENT_FIELDS = {field.name for field in fields(Settlement)}


class Hand:
    """`worker` names its row; a connection opens at once and closes with `close`."""

    def __init__(self, worker: Worker | None = None) -> None:
        self.worker: UUID = (worker or make_worker()).id
        self._loop = asyncio.new_event_loop()
        self.connection: AsyncConnection[Any] = self.run(AsyncConnection.connect(**dsn() | {"autocommit": True}))

    def close(self) -> None:
        self.run(self.connection.close())
        self._loop.close()

    def run(self, awaitable: Awaitable[T]) -> T:
        return self._loop.run_until_complete(awaitable)  # type: ignore[arg-type]

    def claim(self, pool: Model, count: int = 1, **options: Any) -> list[Claimed]:
        """As a worker claims: again at once for as long as that may bring more."""
        jobs: list[Claimed] = []
        exclude: list[int] = []
        while len(jobs) < count:
            claim = self.claim_once(pool, count - len(jobs), exclude=exclude, **options)
            jobs += claim.jobs
            exclude += claim.skipped
            if not claim.again:
                break
        return jobs

    def claim_once(self, pool: Model, count: int = 1, **options: Any) -> Claim:
        return self.run(queue.claim(self.connection, worker=self.worker, pool_id=pool.pk, count=count, **options))

    def settle(self, *claimed: Claimed, state: State = State.COMPLETED, **details: Any) -> dict[int, str]:
        """End these attempts alike. Returns the new states by job; a lost lease is missing."""
        return self.settle_all([settlement(job, state, **details) for job in claimed])

    def settle_all(self, settlements: Sequence[Settlement], events: Sequence[Event] = ()) -> dict[int, str]:
        states, _ = self.run(queue.settle(self.connection, settlements, worker=self.worker, events=events))
        return states

    def settle_at_last(self, settlements: Sequence[Settlement]) -> None:
        """As a worker settles: again for as long as somebody else has a job's row locked."""
        while settlements:
            states = self.settle_all(settlements)
            settlements = [one for one in settlements if states.get(one.job_id) == queue.BUSY]

    def release(self, *claimed: Claimed) -> dict[int, str]:
        return self.settle(*claimed, state=State.QUEUED, cost=0.0)

    def say(self, claimed: Claimed, text: str, *, n: int = 1) -> None:
        """One delta, as a worker's tick writes it."""
        event = Event(claimed.id, claimed.attempt, (claimed.epoch << 20) + n, "delta", {"text": text})
        self.run(append(self.connection, [event], worker=self.worker))

    def reclaim(self) -> list[Wake]:
        return self.run(queue.reclaim(self.connection))

    def stage(self) -> list[Wake]:
        return self.run(queue.stage(self.connection))

    def expire(self) -> list[Wake]:
        return self.run(queue.expire(self.connection))

    def sweep(self) -> int:
        return self.run(queue.sweep(self.connection))

    def prune(self, older_than_s: float = 30 * 86_400.0, *, of_bodies: bool = False, from_start: bool = True) -> int:
        """Removes the jobs that finished so long ago, or their bodies, to the last one. Returns how many."""
        walk = Walk(older_than_s, of_bodies=of_bodies, from_start=from_start)
        while not walk.is_over:
            self.run(walk.step(self.connection))
        return walk.removed

    def fold(self) -> None:
        """What a claim does first, over the whole inbox, and nothing after it."""

        async def folded() -> None:
            async with self.connection.transaction():
                await fold(self.connection, is_sweep=True, is_full=True)

        self.run(folded())

    def ready_pools(self) -> list[int]:
        return self.run(queue.ready_pools(self.connection))


@contextmanager
def hands(count: int) -> Iterator[list[Hand]]:
    made = [Hand() for _ in range(count)]
    try:
        yield made
    finally:
        for hand in made:
            hand.close()


def settlement(claimed: Claimed, state: State = State.COMPLETED, **details: Any) -> Settlement:
    """What an attempt's end implies, where the test does not say otherwise."""
    values: dict[str, Any] = {
        "outcome": OUTCOMES[state],
        "is_failure": state in (State.FAILED, State.DEAD, State.SCHEDULED),
        "delay_s": 0.0,
        "decision": "as the test has it",
        "output_text": "said" if state == State.COMPLETED else "",
    }
    assert details.keys() <= SETTLEMENT_FIELDS, f"no such column: {details.keys() - SETTLEMENT_FIELDS}"
    return Settlement(job_id=claimed.id, attempt=claimed.attempt, state=state, **values | details)


def submit(client: Client, pool: Model, count: int = 1, **asked: Any) -> list[Job]:
    """`count` equal jobs, in one statement. `asked` is of queue.submit; `long=True` asks for two answers."""
    said = asked.pop("messages", [{"role": "user", "content": "Say hello."}])
    request: dict[str, Any] = asked.pop("body", {"messages": said})
    if asked.pop("long", False):
        request = request | {"n": 2}
    handler = asked.pop("on_settled", None)
    submission = parse({"model": pool.name, "body": request, **asked})
    if handler is not None:
        submission = handlers.attached(submission, handler)
    return queue.submit_submissions(client, [submission] * count)


def claimed_job(hand: Hand, client: Client, pool: Model, **asked: Any) -> Claimed:
    """One job, submitted and claimed."""
    submit(client, pool, **asked)
    [claimed] = hand.claim(pool)
    return claimed
