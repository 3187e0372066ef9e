"""Responses in the background: they go on without a viewer, are followed from any event on, and can be cancelled.

Owns what is known of them after the call that began them, the routes under `/v1/responses/{id}`, and the last word in
their ledger entries: one entry a generation, whoever watched. Does not own a socket: a viewer is a `Playback` of the
same script, begun late. Who came back for one is listed as `resumes`, beside the calls.
Invariant: what a generation has said depends on the time alone, so all viewers are told the same at the same time.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from llmjobs.providers.simulator import responses
from llmjobs.providers.simulator.answers import EVENT_STREAM, Answer, Script, error_answer, json_answer
from llmjobs.providers.simulator.calls import RESPONSES, Call
from llmjobs.providers.simulator.faults import ApiError
from llmjobs.providers.simulator.ledger import CANCELLED, COMPLETED, Entry, Ledger

GENERATIONS_MAX = 10_000
RESUMES_MAX = 10_000
PREFIX = f"{RESPONSES}/"

Later = Callable[[float, Callable[[], None]], asyncio.TimerHandle]


class Visit(NamedTuple):
    """Somebody comes for a response. `key`: a hash, as in the ledger."""

    method: str
    path: str
    query: str
    key: str
    client_request_id: str | None


@dataclass(slots=True)
class Generation:
    call: Call
    number: str
    script: Script
    began_at: float  # of the provider's clock, as all times here
    wait_s: float  # before the first token
    token_s: float
    key: str  # whose it is
    timer: asyncio.TimerHandle | None = None
    cancelled_at: float | None = None
    has_ended: bool = False
    closes: Callable[[str, int], None] = lambda outcome, tokens: None  # its entry, with the output tokens

    def close(self, outcome: str, tokens: int) -> None:
        """Once: a viewer may be the first to notice its end, and the ledger knows before it is told."""
        if not self.has_ended:
            self.has_ended = True
            if self.timer is not None:
                self.timer.cancel()
            self.closes(outcome, tokens)

    def finish(self) -> None:
        self.close(COMPLETED, len(self.script.events))

    @property
    def id(self) -> str:
        return f"resp_{self.number}"

    def events_said(self, now: float) -> int:
        now = now if self.cancelled_at is None else self.cancelled_at
        since_s, count = now - self.began_at - self.wait_s, len(self.script.events)
        if since_s < 0:
            return 0
        return min(count, int(since_s / self.token_s) + 1) if self.token_s else count

    def is_finished(self, now: float) -> bool:
        return self.cancelled_at is None and (self.has_ended or now >= self.began_at + self.lasts_s)

    @property
    def lasts_s(self) -> float:
        return self.wait_s + max(0, len(self.script.events) - 1) * self.token_s

    def body(self, now: float) -> dict[str, Any]:
        """The response as it stands."""
        if self.is_finished(now):
            return responses.finished(self.call, self.number, int(self.began_at))
        status = "in_progress" if self.cancelled_at is None else "cancelled"
        tokens = None if self.cancelled_at is None else self.events_said(now)
        return responses.unfinished(self.call, self.number, int(self.began_at), status, tokens)

    def view(self, now: float, *, after: int = -1, lines: str = "") -> Answer:
        """Its stream for one more viewer: all events with a number above `after`."""
        script = responses.script_after(self.script, after)
        wait_s = max(0.0, self.began_at + self.wait_s - now)
        return Answer(200, EVENT_STREAM, lines, script=script, wait_s=wait_s, token_s=self.token_s, generation=self)


class Generations:
    """`later`: a loop's `call_later`; without one nothing ends by itself, and nothing is asked to."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float], later: Later | None) -> None:
        self._ledger, self._clock, self._later = ledger, clock, later
        self._known: OrderedDict[str, Generation] = OrderedDict()
        self._resumes: deque[dict[str, Any]] = deque(maxlen=RESUMES_MAX)

    def begin(self, generation: Generation, entry: Entry) -> None:
        """It goes on from here by itself, and closes its entry at its end."""
        generation.closes = lambda outcome, tokens: self._ledger.close_entry(entry, self._clock(), outcome, tokens)
        self._known[generation.id] = generation
        if len(self._known) > GENERATIONS_MAX:
            self._known.popitem(last=False)
        if self._later is not None:
            generation.timer = self._later(generation.lasts_s, generation.finish)

    def stop(self, outcome: str) -> None:
        for generation in self._known.values():
            generation.close(outcome, generation.events_said(self._clock()))

    def clear_resumes(self) -> None:
        self._resumes.clear()

    def resumes(self) -> list[dict[str, Any]]:
        return list(self._resumes)

    def respond(self, visit: Visit, *, lines: str, kept_s: float) -> Answer:
        """GET a response, or its stream; POST its cancel. Neither another key's is found, nor one past its age."""
        id, _, verb = visit.path.removeprefix(PREFIX).partition("/")
        now = self._clock()
        asked = {name: values[0] for name, values in parse_qs(visit.query).items()}
        is_stream = asked.get("stream") == "true"
        what = verb or ("stream" if is_stream else "get")
        self._resumes.append(
            {"at": now, "key": visit.key, "what": what, "response_id": id, "client_request_id": visit.client_request_id}
        )
        generation = self._known.get(id)
        if generation is None or generation.key != visit.key or now - generation.began_at > kept_s:
            message = f"Response with id '{id}' not found."
            return _error(ApiError(404, message, code="response_not_found"), lines)
        match visit.method, verb:
            case "GET", "":
                return self._shown(generation, now, asked, lines) if is_stream else _body(generation, now, lines)
            case "POST", "cancel":
                self._cancel(generation, now)
                return _body(generation, now, lines)
        return _error(ApiError(405, f"Not allowed to {visit.method} on {visit.path}."), lines)

    def _shown(self, generation: Generation, now: float, asked: dict[str, str], lines: str) -> Answer:
        after = asked.get("starting_after", "-1")
        if not generation.call.is_stream:
            message = "Expected a response that was created with stream=true."
            return _error(ApiError(400, message, param="stream"), lines)
        if not after.removeprefix("-").isdecimal():
            message = f"Expected a sequence number, got {after!r}."
            return _error(ApiError(400, message, param="starting_after"), lines)
        return generation.view(now, after=int(after), lines=lines)

    def _cancel(self, generation: Generation, now: float) -> None:
        """Idempotent; what has come to its end stays as it is."""
        if generation.cancelled_at is None and not generation.is_finished(now):
            generation.cancelled_at = now
            generation.close(CANCELLED, generation.events_said(now))


def first_view(answer: Answer, generation: Generation) -> Answer:
    """The answer to the call that began it: the stream, or, where none was asked for, what there is by then."""
    if generation.call.is_stream:
        return replace(answer, generation=generation)
    queued = responses.unfinished(generation.call, generation.number, int(generation.began_at), "queued", None)
    return replace(json_answer(200, queued, lines=answer.lines), generation=generation)


def _body(generation: Generation, now: float, lines: str) -> Answer:
    return json_answer(200, generation.body(now), lines=lines)


def _error(error: ApiError, lines: str) -> Answer:
    return error_answer(error, lines=lines, outcome="invalid_request")
