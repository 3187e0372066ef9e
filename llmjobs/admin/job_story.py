"""What happened to a job, as one line of steps: every event and attempt in order, with the time between them.

Pure: rows in, steps out; what reads the database is job_page.py. Owns the words and their order, not the looks. An
event and the attempt that it tells of are one step. No step has content, but for words of errors, which may quote
it: they are left out where `with_words` is false.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs.admin.cells import COLOURS, duration, link_to, moment
from llmjobs.models import Attempt, Job, JobEvent, WebhookDelivery, Worker
from llmjobs.states import SEQ_EPOCH, EventType, State

LEASE_LOST = "lease_lost"  # told in words of our own
SAME_TRANSACTION = timedelta(seconds=1)
SHOWN_BETWEEN = timedelta(milliseconds=50)  # a shorter time between two steps is none
WORDS_CHARS_MAX = 600  # of an error, in a step; its attempt has all of them


@dataclass(frozen=True, slots=True)
class Pieces:
    """The deltas of an epoch: how many, how long together, from when to when; `seq` is the last one's."""

    seq: int
    number: int
    characters: int
    since: datetime
    until: datetime

    def text(self) -> str:
        return f"{self.number:,} pieces, {self.characters:,} characters in {duration(self.until - self.since)}"


@dataclass(frozen=True, slots=True)
class Step:
    """`kind` is the colour: good, active, waiting, bad or quiet. `after` is the time since the step before it."""

    at: datetime
    title: str
    kind: str = "quiet"
    notes: tuple[str | SafeString, ...] = ()
    words: str = ""
    after: str = ""


def steps(
    job: Job,
    events: Sequence[JobEvent],
    pieces: Sequence[Pieces],
    attempts: Sequence[Attempt],
    deliveries: Sequence[WebhookDelivery],
    workers: Mapping[UUID, Worker],
    *,
    with_words: bool,
) -> list[Step]:
    """Oldest first. What was left out because it is older than the newest few is left out here, too."""
    told = {attempt.number for attempt in attempts}
    ends = [attempt.ended_at for attempt in attempts if attempt.ended_at]
    found = [
        Step(job.created_at, "submitted", notes=_submitted(job)),
        *(Step(row.until, "text", "active", (row.text(),)) for row in pieces),
        *(step for attempt in attempts for step in _of_attempt(attempt, workers, with_words=with_words)),
        *(step for event in events if (step := _of_event(event, told, ends))),
        *(step for delivery in deliveries for step in _of_delivery(delivery)),
    ]
    if job.cancel_requested_at:
        found.append(Step(job.cancel_requested_at, "cancel asked for", "waiting"))
    return list(_with_pauses(sorted(found, key=lambda step: step.at)))  # sorted is stable: of one moment, as above


def _with_pauses(found: Iterable[Step]) -> Iterator[Step]:
    before: datetime | None = None
    for step in found:
        if before is not None and step.at - before >= SHOWN_BETWEEN:
            step = replace(step, after=duration(step.at - before))
        before = step.at
        yield step


def _submitted(job: Job) -> tuple[str, ...]:
    about = f"estimated at {job.est_input_tokens:,} + {job.est_output_tokens:,} tokens"
    return (f"for {job.home or job.pool}, {about}",)


def _of_event(event: JobEvent, told: set[int], ends: Sequence[datetime]) -> Step | None:
    """None for one that an attempt tells better, and for the first: that is the submit."""
    at = _after_its_cause(event.created_at, ends)
    data: Mapping[str, Any] = event.data if isinstance(event.data, dict) else {}
    status = str(data.get("status", ""))
    if event.type == EventType.RESET:
        return Step(at, "the text starts over", "waiting")
    if status == State.RUNNING and data.get("attempt") in told:
        return None
    if event.seq == SEQ_EPOCH and status == State.QUEUED:
        return None
    if event.type == EventType.DONE and status in (State.CANCELLED, State.EXPIRED) and not ends:
        status = f"{status}, before it started"
    notes: tuple[SafeString, ...] = ()
    if status == State.SCHEDULED and (due := _moment(data.get("available_at"))):
        notes = (format_html("not before {}, {} later", moment(due), duration(due - at)),)
    return Step(at, status or event.type, COLOURS.get(status, "quiet"), notes)


def _after_its_cause(at: datetime, ends: Sequence[datetime]) -> datetime:
    """An event has the time at which its transaction began, the attempt that it ended that of the statement in it."""
    return next((end for end in ends if timedelta(0) <= end - at <= SAME_TRANSACTION), at)


def _moment(value: Any) -> datetime | None:
    """As an event has it; None for whatever else stands there."""
    try:
        at = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


def _of_attempt(row: Attempt, workers: Mapping[UUID, Worker], *, with_words: bool) -> Iterator[Step]:
    worker = workers.get(row.worker_id)
    by = link_to(worker) if worker else str(row.worker_id)[:8]
    waited = f"after {duration(timedelta(seconds=row.waited_s))} in the queue"
    yield Step(
        row.claimed_at, f"attempt {row.number}: claimed", "active", (format_html("by {}, for {}", by, row.pool), waited)
    )
    if row.sent_at:
        yield Step(row.sent_at, f"attempt {row.number}: sent", "active", (f"to {row.pool.provider}",))
    if row.first_token_at:
        yield Step(row.first_token_at, f"attempt {row.number}: first token", "active")
    if row.ended_at:
        words = _cut(row.error_message or "") if with_words else ""
        outcome = str(row.outcome)
        kind = COLOURS.get(outcome, "quiet")
        yield Step(
            row.ended_at, f"attempt {row.number}: {outcome}", kind, tuple(_ending(row, with_words=with_words)), words
        )


def _ending(row: Attempt, *, with_words: bool) -> Iterator[str | SafeString]:
    if row.error_code:
        yield row.error_code + (f", HTTP {row.provider_status}" if row.provider_status else "")
    if row.output_tokens is not None:
        yield f"{row.input_tokens or 0:,} + {row.output_tokens:,} tokens"
    if row.provider_request_id:
        yield format_html("request <code>{}</code>", row.provider_request_id)
    if words := followed(row, with_words=with_words):
        yield words


def followed(row: Attempt, *, with_words: bool) -> str:
    """What was decided, in words, without those of the error, which stand at its end (outcomes.py).

    Where they can't be told apart, all of it is words of the error to who may not see those.
    """
    words = row.decision or ""
    if not row.error_code or row.error_code == LEASE_LOST:
        return words
    own, found, _ = words.partition(f"{row.error_code}: ")
    return own.strip() if found or with_words or not row.error_message else ""


def _cut(words: str) -> str:
    return words if len(words) <= WORDS_CHARS_MAX else words[:WORDS_CHARS_MAX] + "…"


def _of_delivery(row: WebhookDelivery) -> Iterator[Step]:
    if row.tried_at is None:
        return
    answer = f"HTTP {row.status}" if row.status is not None else row.error or ""
    tries = f"{row.tries} {'try' if row.tries == 1 else 'tries'}"
    note = format_html("{}: {}, {}", row.receiver, answer or row.state, link_to(row, tries))
    yield Step(row.tried_at, f"webhook {row.type}: {row.state}", COLOURS.get(row.state, "quiet"), (note,))
