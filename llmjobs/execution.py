"""One attempt: a claimed job, its call, the events on the way, the outcome, and what follows as a `Settlement`.

Owns the attempt's boundary: whatever happens inside ends as an outcome, so that the job is settled. Does not own slots
(`worker.py`), nor when events and settlements are written (`writer.py`).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from llmjobs import outcomes, tracing
from llmjobs.attempt_log import End, log_end, word
from llmjobs.conf import conf
from llmjobs.estimates import cost_usd, weighted_tokens
from llmjobs.events import Event
from llmjobs.leases import Claimed, Settlement
from llmjobs.models.pools import may_hold_key
from llmjobs.outcomes import ERROR_CLASS, Bounds, Decision, Error, Kind, Outcome, Told, Usage
from llmjobs.pacing import Lateness
from llmjobs.providers.calls import Call, Timeouts
from llmjobs.signals import Signal, from_headers, signal_of
from llmjobs.states import SEQ_EPOCH, Endpoint, EventType, State

logger = logging.getLogger("llmjobs.attempt")

API_KEY_MISSING = "api_key_missing"
# Postgres stores no NUL, and UTF-8 no half of a surrogate pair; a provider may send either.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Providers(Protocol):
    """Who makes a worker's calls. `run` raises nothing but its task's own cancellation."""

    async def run(self, call: Call) -> Outcome: ...

    async def close(self) -> None: ...


class Attempt:
    """A running attempt. `take_events` hands over what viewers have not been told yet."""

    def __init__(
        self,
        job: Claimed,
        *,
        has_news: Callable[["Attempt"], None],
        hears: Callable[["Attempt", Signal], None] | None = None,
        send_at: float = 0.0,
        lateness: Lateness | None = None,
        worker: object = None,
    ) -> None:
        """`send_at`: its slot in the limits, monotonic; `lateness` notes by how much it was missed.

        `hears` is told what the provider says that concerns others too.
        """
        self.job = job
        self.worker = worker  # its id, for who reads logs and traces
        self.trace = tracing.AttemptTrace(job, worker=worker)
        self._send_at, self._lateness = send_at, lateness or Lateness()
        self.claimed_at = time.monotonic()
        self.stop_reason: Kind | None = None  # CANCELLED or RELEASED, once somebody has asked
        self.is_lease_lost = False
        self._has_news, self._hears = has_news, hears
        self._call: Call | None = None
        self._texts: list[str] = []
        self.is_ended = False  # the call is over; its settlement is on its way
        self._seq = job.epoch * SEQ_EPOCH
        self._is_whole_told = False  # that all of its text is there, so that it can be settled from the log
        self._response_id: str | None = None  # not yet told
        self._started = False
        self._task: asyncio.Task[Any] | None = None  # while the call is made: what a stop cancels

    async def run(self, providers: Providers) -> Outcome:
        """Make the call. Never raises: what is not foreseen becomes an outcome that an operator will look at."""
        try:
            outcome = await self._run(providers)
            self._hear(self._signal_of(outcome))
            return outcome
        finally:
            self.is_ended = True
            if self._texts or self.job.has_handler:
                self._has_news(self)

    async def _run(self, providers: Providers) -> Outcome:
        self._has_news(self)
        self._call = call = self._new_call()
        if self.job.api_key_env and not call.api_key:
            words = (
                f"expected the provider's key in the variable {self.job.api_key_env}, which this worker does not have"
            )
            return call.ended(Kind.PROVIDER_REFUSED, error=Error(API_KEY_MISSING, words))
        if self.stop_reason is not None:
            return call.ended(self.stop_reason)
        # The task that the worker made for this attempt: one more, for the call, was a tenth of an attempt's cost here.
        self._task = task = asyncio.current_task()
        try:
            if not await self._is_in_time():
                return call.ended(Kind.RELEASED)  # claimed anew, and given another slot, if its lease still holds
            traceparent = self.trace.call()
            call.traceparent = traceparent if conf.provider_traceparent else None
            return await providers.run(call)
        except asyncio.CancelledError:
            if task is not None:
                task.uncancel()  # it ends here, and the task goes on to settle
            return call.answer or call.ended(self.stop_reason or Kind.RELEASED)
        except Exception as error:  # the attempt's boundary: anything at all settles the job
            logger.exception("event=attempt_crashed job=%s attempt=%s", self.job.public_id, self.job.attempt)
            return call.ended(Kind.UNRECOGNISED, error=Error("internal_error", f"{type(error).__name__} in the worker"))
        finally:
            self._task = None

    async def _is_in_time(self) -> bool:
        """Waits for its slot. False: it passed too long ago, the worker stood still; the limits would not hold."""
        ahead_s = self._send_at - time.monotonic()
        if self._send_at and ahead_s > 0:
            await asyncio.sleep(ahead_s)
        now = time.monotonic()
        late_s = now - self._send_at if self._send_at else 0.0
        self._lateness.note(late_s - self.job.slack_s, now)
        return late_s <= self.job.late_max_s

    def stop(self, reason: Kind) -> None:
        """Abort the call, because of a cancel or a drain. An answer that has finished wins."""
        if self.stop_reason is None and not self.is_ended:
            self.stop_reason = reason
            if self._task is not None:
                self._task.cancel()

    def lose(self) -> None:
        """The lease is gone: abort the call, and write nothing any more."""
        self.is_lease_lost = True
        self.stop(Kind.RELEASED)

    def take_events(self) -> list[Event]:
        """The events since the last time: first who runs it (and that the text starts over), then the text."""
        events = []
        if not self._started:
            self._started = True
            events.append(self._event(EventType.STATUS, {"status": "running", "attempt": self.job.attempt}))
            if self.job.attempt > 1:
                events.append(self._event(EventType.RESET, {}))
        text, whole = self._take_text(), self._take_whole()
        # Its end comes with the same commit, unless a handler's time comes between.
        if text or (whole and (not self.is_ended or self.job.has_handler)):
            events.append(self._event(EventType.DELTA, {"text": clean(text)} | whole))
        return events

    def take_response_id(self) -> str | None:
        """Once: by which a later attempt finds the response that goes on at the provider, should this one be lost."""
        response_id, self._response_id = self._response_id, None
        return response_id

    def _take_whole(self) -> dict[str, Any]:
        """Once: that no more text will come. Should this worker be lost now, the log has the answer (reclaim.sql)."""
        assembler = self._call.assembler if self._call is not None else None
        if assembler is None or self._is_whole_told or (reason := assembler.finish_reason) is None or self._texts:
            return {}
        self._is_whole_told = True
        return {"finish_reason": clean(reason), "output_tokens": assembler.piece_count}

    def _take_text(self) -> str:
        """What was said, less half of a surrogate pair at its end, whose other half may be on its way."""
        text = "".join(self._texts)
        self._texts.clear()
        if text and "\ud800" <= text[-1] <= "\udbff" and not self.is_ended:
            self._texts.append(text[-1])
            return text[:-1]
        return text

    def _event(self, type: str, data: dict[str, Any]) -> Event:
        event = Event(self.job.id, self.job.attempt, self._seq, str(type), data)
        self._seq += 1
        return event

    def _signal_of(self, outcome: Outcome) -> Signal | None:
        """What its end says of the provider. Not what is missing here, nor that this one job is forbidden once more."""
        if outcome.error is not None and outcome.error.code == API_KEY_MISSING:
            return None
        signal = signal_of(outcome)
        if signal is not None and signal.forbidden and self.job.attempt > 1:
            return None
        return signal

    def _hear(self, signal: Signal | None) -> None:
        if signal is not None and self._hears is not None:
            self._hears(self, signal)

    def _on_text(self, text: str) -> None:
        self._texts.append(text)
        self._has_news(self)

    def _on_told(self, told: Told) -> None:
        """What is left of the limits, which can't wait for the call's end."""
        self._hear(
            from_headers(told, rpm=self.job.rpm, tpm=self.job.tpm, at=self._call.sent_at if self._call else None)
        )

    def _on_response(self, response_id: str) -> None:
        self._response_id = response_id
        self._has_news(self)

    def _new_call(self) -> Call:
        job = self.job
        return Call(
            endpoint=job.endpoint,
            base_url=job.base_url,
            api_key=os.environ.get(job.api_key_env, "").strip() if may_hold_key(job.api_key_env) else "",
            model=job.upstream_name,
            body=job.body,
            request_id=f"{job.public_id}.{job.attempt}",
            timeouts=Timeouts(
                conf.connect_timeout_s,
                conf.first_token_timeout_s,
                conf.between_tokens_timeout_s,
                job.timeout_s,
            ),
            output_bytes_max=conf.output_max_bytes,
            est_input_tokens=job.est_input_tokens,
            on_text=self._on_text,
            keeps_partial=job.keeps_partial,
            on_told=self._on_told,
            has_background=job.has_background,
            resume_id=job.resume_id,
            is_last=job.failures + 1 >= job.max_attempts,
            is_unwanted=lambda: self.stop_reason is Kind.CANCELLED,
            on_response=self._on_response,
        )


def settlement(attempt: Attempt, outcome: Outcome) -> Settlement:
    """What becomes of the job: the outcome, judged by the policy, priced, and put into words."""
    job = attempt.job
    if job.keeps_partial:
        outcome = outcomes.kept(outcome)
    usage, error = outcome.usage, outcome.error
    price = None if usage is None else _price(job, usage.input_tokens, usage.output_tokens)
    decision = outcomes.decide(
        outcome,
        Bounds(
            attempt=job.attempt,
            failures=job.failures,
            max_attempts=job.max_attempts,
            retry_left_s=job.retry_left_s - (time.monotonic() - attempt.claimed_at),
            spent_usd=job.spent_usd,
            max_cost_usd=job.max_cost_usd,
        ),
        base_s=conf.backoff_base_s,
        cap_s=conf.backoff_cap_s,
        cost_usd=price,
    )
    if error is None and decision.state is State.DEAD:
        error = Error("retries_exhausted", decision.words)
    attempt.trace.called(outcome, error_code=word(error.code) if error else None, cost_usd=price)
    _log(attempt, outcome, decision, price)
    return Settlement(
        job_id=job.id,
        attempt=job.attempt,
        state=decision.state,
        outcome=outcome.kind,
        is_failure=decision.is_failure,
        delay_s=decision.delay_s,
        decision=clean(decision.words),
        error_code=clean(error.code) if error else None,
        error_message=clean(error.message) if error else None,
        error_class=ERROR_CLASS.get(outcome.kind, "unknown") if error else None,
        provider_status=error.provider_status if error else None,
        provider_request_id=outcome.provider_request_id,
        input_tokens=usage.input_tokens if usage else None,
        output_tokens=usage.output_tokens if usage else None,
        cost=weighted_tokens(usage.input_tokens, usage.output_tokens, _output_weight(job)) if usage else None,
        cost_usd=None if price is None else f"{price:.8f}",
        usage=usage.raw if usage and usage.raw is not None else _counted(job.endpoint, usage),
        output=None if outcome.output is None else clean(outcome.output),
        output_text=clean(outcome.output_text),
        sent_ago_s=outcome.sent_ago_s,
        first_token_ago_s=outcome.first_token_ago_s,
        span_id=attempt.trace.span_id,
    )


def clean(text: str) -> str:
    """Text that can be stored, with U+FFFD for what can't."""
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _counted(endpoint: str, usage: Usage | None) -> dict[str, Any] | None:
    """Usage in the endpoint's own words, counted here because the provider did not get to tell it."""
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return None
    asked, answered = ("input", "output") if endpoint == Endpoint.RESPONSES else ("prompt", "completion")
    return {
        f"{asked}_tokens": usage.input_tokens,
        f"{answered}_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "is_estimate": True,
    }


def _price(job: Claimed, input_tokens: int, output_tokens: int) -> Decimal | None:
    return cost_usd(input_tokens, output_tokens, job.input_usd_per_mtok, job.output_usd_per_mtok)


def _output_weight(job: Claimed) -> float:
    if job.input_usd_per_mtok and job.output_usd_per_mtok is not None:
        return float(job.output_usd_per_mtok / job.input_usd_per_mtok)
    return 1.0


def _log(attempt: Attempt, outcome: Outcome, decision: Decision, price: Decimal | None) -> None:
    job, usage, error = attempt.job, outcome.usage, outcome.error
    first_token_s = None
    if outcome.sent_ago_s is not None and outcome.first_token_ago_s is not None:
        first_token_s = outcome.sent_ago_s - outcome.first_token_ago_s
    log_end(
        End(
            job=job.public_id,
            attempt=job.attempt,
            client=job.client,
            tier=job.tier,
            pool=job.model,
            outcome=outcome.kind,
            state=decision.state,
            error=error.code if error else None,
            waited_s=job.waited_s,
            ran_s=time.monotonic() - attempt.claimed_at,
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cost_usd=price,
            first_token_s=first_token_s,
            delay_s=decision.delay_s,
            failures=job.failures + decision.is_failure,
            provider_status=error.provider_status if error else None,
            provider_request_id=outcome.provider_request_id,
            worker=attempt.worker,
            traceparent=job.traceparent,
        )
    )
