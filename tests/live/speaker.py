"""Who writes the log in these tests: a worker that holds a running job, by the worker's own verbs over its own
connection."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from llmjobs import events, queue
from llmjobs.events import EVENTS_CHANNEL, Event, Wake
from llmjobs.leases import Settlement
from llmjobs.live.reading import connect
from llmjobs.models import Client, Job
from llmjobs.states import SEQ_EPOCH, EventType, State
from tests.factories import make_job


class Speaker:
    """Holds `job`, which is running. While `is_heard` is false no wake-up is sent, as if all were lost."""

    def __init__(self, job: Job, connection: AsyncConnection[Any]) -> None:
        assert job.state == State.RUNNING and job.worker_id is not None
        self.job, self.connection, self.worker_id = job, connection, job.worker_id
        self.is_heard = True
        self.seq = job.epoch * SEQ_EPOCH

    async def say(self, *texts: str) -> list[int]:
        """One tick: an event a text, one insert, one wake-up. Returns their numbers."""
        said = []
        for text in texts:
            self.seq += 1
            said.append(Event(self.job.pk, self.job.attempt, self.seq, EventType.DELTA, {"text": text}))
        await events.append(self.connection, said, worker=self.worker_id)
        await self._wake(said[0].seq)
        return [event.seq for event in said]

    async def talk(self, count: int) -> None:
        """`count` ticks of one event, as fast as they go."""
        for number in range(count):
            await self.say(f"{number} ")

    async def end(self, state: State = State.COMPLETED, text: str = "") -> None:
        output = json.dumps({"choices": [{"message": {"content": text}}]})
        settlement = Settlement(
            self.job.pk, self.job.attempt, state, "completed", False, 0, "said all", output=output, output_text=text
        )
        states, wakes = await queue.settle(self.connection, [settlement], worker=self.worker_id)
        assert states == {self.job.pk: state}, f"the job was not held: {states}"
        await self._wake(wakes[0].seq)

    async def _wake(self, seq: int) -> None:
        if self.is_heard:
            await events.wake(self.connection, (EVENTS_CHANNEL, [Wake(self.job.pk, self.job.client_id, seq)]))


@asynccontextmanager
async def speaking(*jobs: Job) -> AsyncIterator[list[Speaker]]:
    connection = await connect()
    try:
        yield [Speaker(job, connection) for job in jobs]
    finally:
        await connection.close()


def running_jobs(client: Client, count: int) -> list[Job]:
    return [make_job(State.RUNNING, client=client) for _ in range(count)]


def log_of(job: Job) -> list[tuple[int, str]]:
    """What was logged, in order: (seq, type)."""
    return list(job.events.order_by("seq").values_list("seq", "type"))


def texts(events: Sequence[dict[str, Any]]) -> str:
    """What the deltas among frames or stream events say together."""
    return "".join(event["data"]["text"] for event in events if event.get("type", event.get("event")) == "delta")
