"""What a viewer is sent: an event of the log as a WebSocket frame or as a block of Server-Sent Events, rendered once
for all viewers.

Owns the two shapes, and what `done` shows: the log keeps only the state that a job ended in; viewers get the whole
job, as GET gives it, or a note that it was requeued since. Does not own the job's JSON: representation.py does.
Invariant: an event that `is_last` is the end of its job as far as the database knew when it was rendered.
"""

import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error

from llmjobs.live.reading import LogRow
from llmjobs.models import Job
from llmjobs.models.jobs import JOB_RELATED
from llmjobs.representation import job_json
from llmjobs.states import SEQ_EPOCH, EventType

logger = logging.getLogger(__name__)

KEEP_ALIVE = b": keep-alive\n\n"
# A job is rendered once for viewers who reached the server by different names; this stands where a link has the name.
_ANY_SITE = f"{secrets.token_hex(16)}.invalid"


@dataclass(slots=True)
class LiveEvent:
    """`data` is JSON on one line, as the database wrote it; `at_ms` is when it was logged, in unix time.

    `site` is scheme and host by which a viewer knows this server; only a job's links have it.
    """

    job_id: int
    job: str  # the public id
    seq: int
    type: str
    data: str
    at_ms: int
    is_last: bool = False
    has_links: bool = False
    _frame: str = ""
    _block: bytes = b""

    def frame(self, site: str) -> str:
        """For `/ws/jobs/{id}/`."""
        if not self._frame:
            self._frame = f'{{"seq": {self.seq}, "type": "{self.type}", "data": {self.data}}}'
        return _at(site, self._frame) if self.has_links else self._frame

    def feed_frame(self, site: str) -> str:
        """For `/ws/jobs/`."""
        return f'{{"job": "{self.job}", {self.frame(site)[1:]}'

    def block(self, site: str) -> bytes:
        """For `GET …/events`: `id:` is the number of the event."""
        if not self._block:
            self._block = f"id: {self.seq}\nevent: {self.type}\ndata: {self.data}\n\n".encode()
        return _at(site, self._block.decode()).encode() if self.has_links else self._block

    def feed_block(self, site: str, mark_ms: int) -> bytes:
        """For `GET /api/events`: `id:` is the moment to resume from."""
        return f"id: {mark_ms}\nevent: {self.type}\ndata: {self.feed_frame(site)}\n\n".encode()


def _at(site: str, text: str) -> str:
    return text.replace(f"http://{_ANY_SITE}", site).replace(f"ws://{_ANY_SITE}", site.replace("http", "ws", 1))


def live_events(rows: Iterable[LogRow], public_id: str) -> list[LiveEvent]:
    """Of one job. A `done` among them is still as the log has it: see `show_jobs`."""
    return [LiveEvent(row.job_id, public_id, row.seq, row.type, row.data, row.at_ms) for row in rows]


def epoch_of(seq: int) -> int:
    return seq // SEQ_EPOCH


async def show_jobs(events: Sequence[LiveEvent], in_thread: Callable[..., Awaitable[None]]) -> Sequence[LiveEvent]:
    """Puts the job into each `done` among `events`, one query for all of them. Raises django.db.Error."""
    ended = [event for event in events if event.type == EventType.DONE]
    if ended:
        await in_thread(_fill, ended)
    return events


def _fill(ended: Sequence[LiveEvent]) -> None:
    jobs = Job.objects.select_related(*JOB_RELATED).in_bulk([event.job_id for event in ended])
    for event in ended:
        job = jobs.get(event.job_id)
        event.is_last = job is None or job.epoch == epoch_of(event.seq)
        shown = _job(job) if job is not None and event.is_last else None
        event.has_links = shown is not None
        event.data = json.dumps(shown or _note(event), cls=DjangoJSONEncoder, ensure_ascii=False)


def _job(job: Job) -> dict[str, Any] | None:
    """None: this job can't be rendered. It must not take away the sight of all the others that are read with it."""
    try:
        return job_json(job, base_url=f"http://{_ANY_SITE}", with_place=False)
    except Error:
        raise  # the database is away: the whole round is read again
    except Exception:
        logger.exception("event=job_not_rendered job=%s", job.public_id)
        return None


def _note(event: LiveEvent) -> dict[str, Any]:
    """Instead of the job: it was requeued since, so that this was not the end; or there is no more to show of it."""
    note = {"id": event.job, "object": "job", "status": json.loads(event.data).get("status")}
    return note if event.is_last else note | {"superseded": True}
