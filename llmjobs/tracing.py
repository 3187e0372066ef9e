"""Traces from submit to settle: W3C's `traceparent` always, OpenTelemetry's spans where `opentelemetry-api` is there.

Owns the names and attributes of the spans, and what of a trace is kept with a job. Does not own where spans go: an SDK
does, which whoever starts the process sets up (`opentelemetry-instrument python manage.py runworker`); without one, or
without the package, all of this costs next to nothing. Invariant: no prompt, no answer and no word of a provider's is
in a span.

    submit <model>        producer; in the request that submits; what it hands on is stored with the job
    └─ run <model>        consumer; an attempt, from its claim until its settle has committed; linked to the one before
       └─ chat <model>    client; the provider's call, with attributes as gen_ai.* of the semantic conventions
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from llmjobs.leases import Claimed
from llmjobs.models import Client
from llmjobs.outcomes import Kind, Outcome
from llmjobs.states import Endpoint

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace as otel
    from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
except ImportError:
    HAS_OTEL = False
else:
    HAS_OTEL = True
    _tracer = otel.get_tracer("llmjobs")  # a proxy: it finds the SDK that is set up later

# https://www.w3.org/TR/trace-context-2/#traceparent-header; a later version may have more behind the flags.
TRACEPARENT = re.compile(r"(?!ff)(?P<version>[0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?P<more>-.*)?")
VERSION = "00"
OPERATIONS = {Endpoint.EMBEDDINGS: "embeddings"}  # all else is a chat, in the words of the conventions
WELL = frozenset({Kind.COMPLETED, Kind.INTERRUPTED, Kind.CANCELLED, Kind.RELEASED})


def parsed(header: str | None) -> str | None:
    """A caller's `traceparent` as it is stored, 55 characters; None for what is none, which W3C has ignored."""
    found = TRACEPARENT.fullmatch(header or "")
    if found is None or (found["version"] == VERSION and found["more"] is not None):
        return None
    _, trace_id, span_id, flags, _ = found.groups()
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return f"{VERSION}-{trace_id}-{span_id}-{flags}"


def trace_id_of(traceparent: str | None) -> str | None:
    return traceparent.split("-")[1] if traceparent else None


@contextmanager
def submitting(
    client: Client, rows: Sequence[dict[str, Any]], models: Sequence[str], traceparent: str | None = None
) -> Iterator[None]:
    """The span of a submit, which `rows` (as of drafts.row) get for their jobs to go on with.

    A child of what runs here, or of `traceparent` (as of `parsed`) where nothing does.
    """
    if not HAS_OTEL:
        _note(rows, traceparent)
        yield
        return
    has_parent_here = otel.get_current_span().get_span_context().is_valid
    place = models[0] if len(set(models)) == 1 else "several models"
    with _tracer.start_as_current_span(
        f"submit {place}",
        context=None if has_parent_here or traceparent is None else _beneath(traceparent),
        kind=SpanKind.PRODUCER,
        record_exception=False,  # its words may quote what was submitted
        set_status_on_exception=False,
    ) as span:
        _note(rows, _traceparent(span))
        if span.is_recording():
            span.set_attributes(
                _messaging("send", place)
                | {"llmjobs.client": client.name, "llmjobs.tier": client.tier.name}
                | ({"messaging.message.id": rows[0]["public_id"]} if len(rows) == 1 else {})
                | ({"messaging.batch.message_count": len(rows)} if len(rows) > 1 else {})
            )
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise


def _note(rows: Sequence[dict[str, Any]], traceparent: str | None) -> None:
    for row in rows:
        row["traceparent"] = traceparent


def _messaging(operation: str, place: str) -> dict[str, Any]:
    return {
        "messaging.system": "llmjobs", "messaging.operation.type": operation, "messaging.destination.name": place,
    }  # fmt: skip


class AttemptTrace:
    """The spans of one attempt: begun at its claim, ended when its settle has committed."""

    def __init__(self, job: Claimed, *, worker: object = None) -> None:
        self._job = job
        self._span: Span | None = None
        self._call: Span | None = None
        if not HAS_OTEL:
            return
        self._span = _tracer.start_span(
            f"run {job.model}",
            context=otel_context.Context() if job.traceparent is None else _beneath(job.traceparent),
            kind=SpanKind.CONSUMER,
            links=_link_to_the_one_before(job),
        )
        if self._span.is_recording():
            self._span.set_attributes(
                _messaging("process", job.model)
                | {
                    "messaging.message.id": str(job.public_id),
                    "llmjobs.attempt": job.attempt, "llmjobs.client": job.client, "llmjobs.tier": job.tier,
                    "llmjobs.waited_s": job.waited_s, "llmjobs.worker": str(worker or ""),
                }
            )  # fmt: skip

    @property
    def span_id(self) -> str | None:
        """What the next attempt links to; None where nothing is traced."""
        if self._span is None or not self._span.is_recording():
            return None
        return otel.format_span_id(self._span.get_span_context().span_id)

    def call(self) -> str | None:
        """The call begins. Returns the `traceparent` that the provider may be given."""
        if self._span is None:
            return self._job.traceparent
        job = self._job
        operation = OPERATIONS.get(Endpoint(job.endpoint), "chat")
        self._call = _tracer.start_span(
            f"{operation} {job.upstream_name}", context=otel.set_span_in_context(self._span), kind=SpanKind.CLIENT
        )
        if self._call.is_recording():
            self._call.set_attributes(
                {
                    "gen_ai.operation.name": operation, "gen_ai.provider.name": job.provider,
                    "gen_ai.request.model": job.upstream_name, "server.address": urlsplit(job.base_url).hostname or "",
                }
            )  # fmt: skip
        return _traceparent(self._call)

    def called(self, outcome: Outcome, *, error_code: str | None, cost_usd: Decimal | None) -> None:
        """The call has ended; what became of it is still to be committed."""
        if self._span is None or not self._span.is_recording():
            return
        self._span.set_attribute("llmjobs.outcome", str(outcome.kind))
        if cost_usd is not None:
            self._span.set_attribute("llmjobs.cost_usd", float(cost_usd))
        spans = [self._span] if self._call is None else [self._span, self._call]
        if outcome.kind not in WELL:
            for span in spans:
                span.set_attribute("error.type", error_code or str(outcome.kind))
                span.set_status(Status(StatusCode.ERROR))
        if self._call is not None:
            self._call.set_attributes(_of_answer(outcome))
            self._call.end()
            self._call = None

    def end(self, state: str | None) -> None:
        """Its settle has committed, and the job is in `state`; None: the lease was lost, and nothing was written."""
        if self._span is None:
            return
        for span in (self._call, self._span):
            if span is not None and state is None:
                span.set_attribute("error.type", "lease_lost")
                span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute("llmjobs.state", state or "lost")
        if self._call is not None:
            self._call.end()
        self._span.end()


def _of_answer(outcome: Outcome) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if outcome.usage is not None:
        said["gen_ai.usage.input_tokens"] = outcome.usage.input_tokens
        said["gen_ai.usage.output_tokens"] = outcome.usage.output_tokens
    if outcome.sent_ago_s is not None and outcome.first_token_ago_s is not None:
        said["gen_ai.response.time_to_first_chunk"] = outcome.sent_ago_s - outcome.first_token_ago_s
    if outcome.error is not None and outcome.error.provider_status is not None:
        said["http.response.status_code"] = outcome.error.provider_status
    if outcome.provider_request_id is not None:
        said["llmjobs.provider_request_id"] = outcome.provider_request_id
    return said


def _link_to_the_one_before(job: Claimed) -> "list[Link]":
    """A retry, or a requeue by an operator, says which attempt it comes after: a sibling in the same trace."""
    if job.traceparent is None or job.span_before is None:
        return []
    _, trace_id, _, flags = job.traceparent.split("-")
    return [Link(_span_context(trace_id, job.span_before, flags), {"llmjobs.link": "attempt before"})]


def _beneath(traceparent: str) -> "otel_context.Context":
    _, trace_id, span_id, flags = traceparent.split("-")
    parent = NonRecordingSpan(_span_context(trace_id, span_id, flags))
    return otel.set_span_in_context(parent, otel_context.Context())


def _span_context(trace_id: str, span_id: str, flags: str) -> "SpanContext":
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _traceparent(span: "Span") -> str | None:
    known = span.get_span_context()
    if not known.is_valid:
        return None
    trace_id, span_id = otel.format_trace_id(known.trace_id), otel.format_span_id(known.span_id)
    return f"{VERSION}-{trace_id}-{span_id}-{known.trace_flags:02x}"
