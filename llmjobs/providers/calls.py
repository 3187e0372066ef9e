"""One call to a provider as a value that fills: what it asks, and what is known of it while it runs.

Owns what an outcome says of usage and of partial text. Does not own the wire (`openai.py`) nor what an error means
(`endings.py`). Invariant: whenever the call is stopped, `ended` tells what had come until then.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmjobs.outcomes import Kind, Outcome, Told, Usage
from llmjobs.providers.assembly import Assembler, dump_json, storable, text_of, tokens_of
from llmjobs.providers.headers import told

STOOD_STILL_S = 1.0
# Ends after which the job is tried again without a failure, so that somebody waits for its response.
TRIED_AGAIN = (Kind.RELEASED, Kind.NOT_SENT, Kind.REJECTED, Kind.PROVIDER_REFUSED)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `total_s` is the job's own, the others are settings."""

    connect_s: float
    first_token_s: float
    between_tokens_s: float
    total_s: float


class Deadline:
    """When the provider must have said something more, and when it must have ended."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._clock = asyncio.get_running_loop().time
        self._ends_at = self._clock() + timeouts.total_s
        self.timeout = asyncio.timeout_at(min(self._ends_at, self._clock() + timeouts.first_token_s))

    def within(self, wait_s: float) -> None:
        self.timeout.reschedule(min(self._ends_at, self._clock() + wait_s))

    @property
    def is_total(self) -> bool:
        """What it waits for now is the end of the whole call, rather than the next word."""
        return self.timeout.when() == self._ends_at

    @property
    def is_long_past(self) -> bool:
        """This process stood still, or it would have been noticed sooner."""
        due_at = self.timeout.when()
        return due_at is not None and self._clock() - due_at > STOOD_STILL_S


@dataclass(slots=True)
class Call:
    """One call, and what is known of it while it runs: what a cancel leaves behind is read from here."""

    endpoint: str
    base_url: str
    api_key: str
    model: str
    body: str  # JSON object as text, without model
    request_id: str  # <job>.<attempt>
    timeouts: Timeouts
    output_bytes_max: int
    est_input_tokens: int
    on_text: Callable[[str], None]
    keeps_partial: bool = False  # of a stream that breaks, what had come shall be its answer
    on_told: Callable[[Told], None] = lambda told: None  # as soon as the answer's headers are there
    has_background: bool = False  # the provider goes on with a response by itself, and finds it again
    resume_id: str | None = None  # such a response, which an attempt before began
    is_last: bool = False  # should it fail, nobody will come back for its response
    is_unwanted: Callable[[], bool] = lambda: False  # whether a cancel was asked for
    on_response: Callable[[str], None] = lambda response_id: None  # by this id it is found again
    traceparent: str | None = None  # for the provider; None: it is told of no trace
    told: Told | None = None
    sent_at: float | None = None  # time.monotonic()
    first_token_at: float | None = None
    provider_request_id: str | None = None
    assembler: Assembler | None = None
    texts: list[str] = field(default_factory=list)
    is_background: bool = False  # it was asked for as one that goes on by itself
    response_id: str | None = None  # of such a one, once it is known
    is_over: bool = False  # its response has ended, or nobody wants it any more
    told_usage: Usage | None = None  # what the provider said of it when it was cancelled
    answer: Outcome | None = None  # once it is complete: it wins over a cancel that comes while the connection closes

    def ended(self, kind: Kind, **details: Any) -> Outcome:
        """The outcome of this call, with its times and, after a break, what had come until then."""
        now = time.monotonic()
        if kind is not Kind.COMPLETED:
            details.setdefault("output_text", "".join(self.texts))
            details.setdefault("usage", self._usage_until_now(kind))
            if self.keeps_partial and self.assembler is not None and self.texts and not self.goes_on(kind):
                details.setdefault("partial", dump_json(self.assembler.interrupted("".join(self.texts))))
        return Outcome(
            kind,
            provider_request_id=self.provider_request_id,
            sent_ago_s=None if self.sent_at is None else now - self.sent_at,
            first_token_ago_s=None if self.first_token_at is None else now - self.first_token_at,
            told=self.told,
            **details,
        )

    def complete(self, body: dict[str, Any], raw: str | None) -> Outcome:
        """The answer is there: `raw`, where it came in one piece, else what the stream was put together to."""
        usage = tokens_of(body.get("usage"))
        if usage is None:
            pieces = self.assembler.piece_count if self.assembler is not None else 0
            usage = (self.est_input_tokens, pieces)
        if raw is not None:
            self._say_rest(text_of(self.endpoint, body))
        self.is_over = True
        self.answer = self.ended(
            Kind.COMPLETED,
            output=raw if raw is not None else dump_json(body),
            output_text="".join(self.texts) or text_of(self.endpoint, body),
            usage=Usage(*usage, raw=storable(body.get("usage"))),
        )
        return self.answer

    def hear(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer is there: who answered which call, and what it says of the provider's limits."""
        self.provider_request_id = (headers.get("x-request-id") or "")[:255] or None
        self.told = told(headers, status=status)
        self.on_told(self.told)

    def know_response(self, response_id: str | None) -> None:
        """Its response in the background, by the id under which it can be found again."""
        if self.is_background and response_id is not None and response_id != self.response_id:
            self.response_id = response_id
            self.on_response(response_id)

    def goes_on(self, kind: Kind) -> bool:
        """Whether, after this end, its response goes on at the provider, and another attempt will pick it up."""
        if self.response_id is None or self.is_over:
            return False
        return kind in TRIED_AGAIN or (kind is Kind.UNKNOWN and not self.is_last)

    def _say_rest(self, text: str) -> None:
        """A whole answer, of which a part may have been told."""
        said = "".join(self.texts)
        rest = text.removeprefix(said)
        self.texts[:] = [text]
        if rest:
            self.on_text(rest)

    def _usage_until_now(self, kind: Kind) -> Usage | None:
        if self.goes_on(kind):
            return Usage(0, 0)  # it is priced once, by the attempt that sees its end
        if self.told_usage is not None:
            return self.told_usage
        if self.assembler is not None and self.assembler.piece_count:
            return Usage(self.est_input_tokens, self.assembler.piece_count)
        is_sent = self.sent_at is not None and kind in (
            Kind.UNKNOWN,
            Kind.CANCELLED,
            Kind.RELEASED,
            Kind.UNRECOGNISED,
        )
        return None if is_sent else Usage(0, 0)
