"""What the page of one job shows: where it stands, what was asked, what came back, its timeline, every attempt.

Reading only, in a fixed number of queries whatever the job is: texts are cut in the database, deltas are counted
there, events and attempts are the newest few. Without the permission for content, the texts are not even read, and
the words of errors, which may quote them, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, F, Max, Min, Prefetch, QuerySet, Sum, prefetch_related_objects
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Length
from django.utils.safestring import SafeString

from llmjobs.admin import job_content
from llmjobs.admin.cells import NOTHING, badge, count, duration, link_to, moment, usd
from llmjobs.admin.filters import as_id, as_uuid
from llmjobs.admin.job_bars import LEGEND, Bar, bars
from llmjobs.admin.job_columns import clock
from llmjobs.admin.job_standing import standing
from llmjobs.admin.job_story import Pieces, Step, followed, steps
from llmjobs.models import Attempt, DeliveryState, Job, JobEvent, JobRequest, JobResult, WebhookDelivery, Worker
from llmjobs.places import Place, places
from llmjobs.states import SEQ_EPOCH, EventType, State

EVENTS_MAX = 200
ATTEMPTS_MAX = 100
DELIVERIES_MAX = 20


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the timeline, without content: who may not read a text may know how long it is."""

    seq: int
    at: datetime
    type: str
    text: str

    @property
    def epoch(self) -> int:
        return self.seq // SEQ_EPOCH


@dataclass(frozen=True, slots=True)
class JobDetails:
    """Timeline and attempts are newest first, the story and the bars oldest first.

    `asked` is None where it is hidden, was erased, or was not wanted; `request` then tells which. `epoch_seq`: viewers
    who follow the present attempt begin behind this event.
    """

    may_see_content: bool
    asked: job_content.Asked | None
    answered: job_content.Answered | None
    request: JobRequest | None
    place: Place | None
    worker: Worker | None
    standing: str | SafeString
    story: Sequence[Step]
    bars: Sequence[Bar]
    epoch_seq: int
    timeline: Sequence[Line]
    has_older_events: bool
    attempts: Sequence["AttemptRow"]
    has_older_attempts: bool
    deliveries: Sequence["DeliveryRow"]
    legend = LEGEND


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt as cells of a table."""

    number: int
    outcome: SafeString
    decision: str
    error: str
    model: str
    worker: str | SafeString
    claimed: str | SafeString
    sent: str
    first_token: str
    ended: str
    tokens: str
    cost: str
    request_id: str


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A webhook as cells of a table: one end that was told."""

    id: SafeString
    type: str
    receiver: str
    state: SafeString
    tries: str
    answer: str
    last_try: str | SafeString
    next_try: str | SafeString


def find(jobs: QuerySet[Job], job_id: str) -> Job | None:
    """By number or by public id; what is neither is no job."""
    if public_id := as_uuid(job_id):
        jobs = jobs.filter(public_id=public_id)
    elif (number := as_id(job_id)) is not None:
        jobs = jobs.filter(pk=number)
    else:
        return None
    return jobs.select_related("client", "tier", "pool__provider", "home").first()


def load(job: Job, *, with_content: bool, with_request: bool = True) -> JobDetails:
    """Everything around `job`, and its result's small columns as `job.result`.

    `with_request`: its body too, which never changes while a page is open.
    """
    prefetch_related_objects([job], Prefetch("result", JobResult.objects.defer("output", "output_text")))
    events, pieces = _events(job), _pieces(job)
    tries = list(
        Attempt.objects.filter(job=job).select_related("pool__provider").order_by("-number")[: ATTEMPTS_MAX + 1]
    )
    holders = {row.worker_id for row in tries} | ({job.worker_id} if job.worker_id else set())
    workers = Worker.objects.in_bulk(holders)
    worker = workers.get(job.worker_id) if job.worker_id else None
    told = list(WebhookDelivery.objects.filter(job=job).order_by("-epoch")[:DELIVERIES_MAX]) if job.has_webhook else []
    place = places([job]).get(job.pk) if job.state == State.QUEUED else None
    lines = _timeline(events, pieces)
    shown = tries[:ATTEMPTS_MAX]
    return JobDetails(
        may_see_content=with_content,
        asked=job_content.asked(job) if with_content and with_request else None,
        answered=job_content.answered(job) if with_content else None,
        request=JobRequest.objects.filter(job=job).defer("body").first(),
        place=place,
        worker=worker,
        standing=standing(job, place, worker, tries[0] if tries else None),
        story=steps(job, events[:EVENTS_MAX], pieces, shown, told, workers, with_words=with_content),
        bars=bars(job, shown, clock(job)),
        epoch_seq=job.epoch * SEQ_EPOCH - 1,
        timeline=lines[:EVENTS_MAX],
        has_older_events=len(lines) > EVENTS_MAX,
        attempts=[_attempt(row, workers.get(row.worker_id), with_words=with_content) for row in shown],
        has_older_attempts=len(tries) > ATTEMPTS_MAX,
        deliveries=[_delivery(row) for row in told],
    )


def _events(job: Job) -> list[JobEvent]:
    """The newest that are no deltas, and one more, if there is one."""
    events = JobEvent.objects.filter(job=job).exclude(type=EventType.DELTA)
    return list(events.order_by("-seq")[: EVENTS_MAX + 1])


def _pieces(job: Job) -> list[Pieces]:
    """The deltas of the newest epochs, counted in the database, and those of one more, if there is one."""
    rows = (
        JobEvent.objects.filter(job=job, type=EventType.DELTA)
        .annotate(epoch=F("seq").bitrightshift(SEQ_EPOCH.bit_length() - 1))
        .values("epoch")
        .annotate(
            number=Count("pk"), characters=Sum(Length(KeyTextTransform("text", "data"))),
            last_seq=Max("seq"), since=Min("created_at"), until=Max("created_at"),
        )
        .order_by("-epoch")[: EVENTS_MAX + 1]
    )  # fmt: skip
    return [Pieces(row["last_seq"], row["number"], row["characters"] or 0, row["since"], row["until"]) for row in rows]


def _timeline(events: Sequence[JobEvent], pieces: Sequence[Pieces]) -> list[Line]:
    """Every event as a line, newest first; the deltas of an epoch are one: how many, and how long they are."""
    lines = [Line(event.seq, event.created_at, event.type, _event_text(event)) for event in events]
    lines += [Line(row.seq, row.until, EventType.DELTA, row.text()) for row in pieces]
    return sorted(lines, key=lambda line: line.seq, reverse=True)


def _attempt(row: Attempt, worker: Worker | None, *, with_words: bool) -> AttemptRow:
    def after(at: datetime | None) -> str:
        return f"+{duration(at - row.claimed_at)}" if at else NOTHING

    error = row.error_code or NOTHING
    if row.error_code and row.error_message and with_words:
        error = f"{row.error_code}: {row.error_message}"
    return AttemptRow(
        number=row.number,
        outcome=badge(row.outcome or "in flight"),
        decision=followed(row, with_words=with_words) or NOTHING,
        error=f"HTTP {row.provider_status}, {error}" if row.provider_status else error,
        model=row.pool.name,
        worker=link_to(worker) if worker else str(row.worker_id)[:8],
        claimed=moment(row.claimed_at),
        sent=after(row.sent_at),
        first_token=after(row.first_token_at),
        ended=after(row.ended_at),
        tokens=f"{count(row.input_tokens)} + {count(row.output_tokens)}",
        cost=usd(row.cost_usd),
        request_id=row.provider_request_id or NOTHING,
    )


def _delivery(row: WebhookDelivery) -> DeliveryRow:
    return DeliveryRow(
        id=link_to(row, row.pk),
        type=row.type,
        receiver=row.receiver,
        state=badge(row.state),
        tries=count(row.tries),
        answer=f"HTTP {row.status}" if row.status is not None else row.error or NOTHING,
        last_try=moment(row.tried_at),
        next_try=moment(row.next_at) if row.state == DeliveryState.PENDING else NOTHING,
    )


def _event_text(event: JobEvent) -> str:
    """By the few keys that events of these types have; a key that is not known here might be content."""
    if event.type == EventType.RESET:
        return "the text starts over"
    data = event.data if isinstance(event.data, dict) else {}
    parts = [str(data.get("status", ""))]
    if data.get("attempt"):
        parts.append(f"attempt {data['attempt']}")
    if data.get("available_at"):
        parts.append(f"not before {data['available_at']}")
    return ", ".join(part for part in parts if part)
