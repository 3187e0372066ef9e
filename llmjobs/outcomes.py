"""How an attempt ended, and what follows. Pure: values in, values out; `queue.settle` applies them.

An outcome says what happened. The policy in `decide` says what becomes of the job: a new state, whether a failure is
counted, and how long to wait. What a provider's error means is decided by `classify` alone.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from llmjobs.states import State


class Kind(StrEnum):
    COMPLETED = "completed"
    INTERRUPTED = "interrupted"  # it broke off, and what had come was kept, as the job asked
    CANCELLED = "cancelled"  # aborted because a cancel was asked for
    RELEASED = "released"  # handed back on drain
    NOT_SENT = "not_sent"  # no byte reached the provider: name resolution, connection, pool
    REJECTED = "rejected"  # the provider said "not now"
    PROVIDER_REFUSED = "provider_refused"  # key, quota, permission: says nothing about the job
    DETERMINISTIC = "deterministic"  # the request itself can't succeed
    UNKNOWN = "unknown"  # it may have been done, and billed
    UNRECOGNISED = "unrecognised"  # nobody knows what it means: an operator decides


# Ends that leave a stream broken, whoever broke it; not those that somebody wanted.
BREAKS = frozenset({Kind.UNKNOWN, Kind.RELEASED, Kind.REJECTED, Kind.PROVIDER_REFUSED, Kind.UNRECOGNISED})
ERROR_CLASS = {
    Kind.NOT_SENT: "transient",
    Kind.REJECTED: "transient",
    Kind.PROVIDER_REFUSED: "transient",
    Kind.DETERMINISTIC: "deterministic",
    Kind.UNKNOWN: "unknown",
    Kind.UNRECOGNISED: "unknown",
}

MESSAGE_CHARS_MAX = 2_000
IN_PLACE_MAX = 3  # attempts without a failure, after which a job that is refused does not keep its place


@dataclass(frozen=True, slots=True)
class Error:
    code: str
    message: str
    provider_status: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them, or as they were counted here before a break; `raw` is the provider's."""

    input_tokens: int
    output_tokens: int
    raw: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the headers of an answer say of the provider's limits. None: nothing, or nothing that makes sense."""

    requests_limit: int | None = None  # a minute
    requests_left: int | None = None
    tokens_limit: int | None = None
    tokens_left: int | None = None
    wait_s: float | None = None  # as the provider asked, or, of a refusal, as its other headers imply
    lies: int = 0  # headers that were there and made no sense


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: Kind
    error: Error | None = None
    retry_after_s: float | None = None
    provider_request_id: str | None = None
    output: str | None = None  # the provider's body, as JSON text
    output_text: str = ""
    partial: str | None = None  # the body of what came before a break, where the job keeps that
    usage: Usage | None = None  # None: nothing is known, the estimate stands
    sent_ago_s: float | None = field(default=None, compare=False)
    first_token_ago_s: float | None = field(default=None, compare=False)
    told: Told | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What limits the retries of one job, as they stood when it was claimed."""

    attempt: int
    failures: int
    max_attempts: int
    retry_left_s: float
    spent_usd: Decimal = Decimal(0)
    max_cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    state: State
    is_failure: bool
    delay_s: float
    words: str


def backoff_s(failures: int, *, base_s: float, cap_s: float, draw: float | None = None) -> float:
    """Full jitter: uniform(0, min(cap, base · 2^failures)), in seconds. `draw` in [0, 1) replaces chance.

    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    return (random.random() if draw is None else draw) * min(cap_s, base_s * 2 ** min(failures, 30))


def decide(
    outcome: Outcome,
    bounds: Bounds,
    *,
    base_s: float,
    cap_s: float,
    cost_usd: Decimal | None = None,
    draw: float | None = None,
) -> Decision:
    """What becomes of the job. `cost_usd` is what this attempt cost."""
    kind, error = outcome.kind, outcome.error
    said = f"{error.code}: {error.message}" if error else ""
    match kind:
        case Kind.COMPLETED:
            return Decision(State.COMPLETED, False, 0, "The answer is complete.")
        case Kind.INTERRUPTED:
            words = f"The stream broke off; what had come is the answer, as on_interrupt asks. {said}"
            return Decision(State.COMPLETED, False, 0, words.strip())
        case Kind.CANCELLED:
            return Decision(State.CANCELLED, False, 0, "Aborted: a cancel was asked for.")
        case Kind.RELEASED:
            return _released(outcome, bounds, cost_usd or Decimal(0))
        case Kind.DETERMINISTIC:
            return Decision(State.FAILED, True, 0, f"The request itself can't succeed, so it is not repeated. {said}")
        case Kind.UNRECOGNISED:
            return Decision(State.DEAD, True, 0, f"An error that nobody recognises; an operator decides. {said}")
    is_limited = is_rate_limit(outcome)
    is_failure = kind in (Kind.UNKNOWN, Kind.REJECTED) and not is_limited
    # One that is refused again and again lets others pass: it may be the only one.
    waits_in_queue = (kind is Kind.PROVIDER_REFUSED or is_limited) and bounds.attempt - bounds.failures <= IN_PLACE_MAX
    failures = bounds.failures + is_failure
    delay_s = outcome.retry_after_s or 0
    if not waits_in_queue:
        tried = failures if is_failure else bounds.attempt
        delay_s = max(delay_s, backoff_s(tried, base_s=base_s, cap_s=cap_s, draw=draw))
    if is_failure and failures >= bounds.max_attempts:
        return Decision(State.DEAD, True, 0, f"Failure {failures} of {bounds.max_attempts}: dead-lettered. {said}")
    if (0 if waits_in_queue else delay_s) >= bounds.retry_left_s:
        return Decision(State.DEAD, is_failure, 0, f"The time for retries (retry_for_s) is over: dead-lettered. {said}")
    spent = bounds.spent_usd + (cost_usd or 0)
    if bounds.max_cost_usd is not None and is_failure and spent >= bounds.max_cost_usd:
        return Decision(
            State.DEAD,
            True,
            0,
            f"Lost attempts cost ${spent:f} of at most ${bounds.max_cost_usd:f}: dead-lettered. {said}",
        )
    if waits_in_queue:
        words = f"Back in its queue (no failure counted), which waits until the provider takes calls again. {said}"
        return Decision(State.QUEUED, False, 0, words)
    counted = f"failure {failures} of {bounds.max_attempts}" if is_failure else "no failure counted"
    return Decision(State.SCHEDULED, is_failure, delay_s, f"Tried again in {delay_s:.1f} s ({counted}). {said}")


def _released(outcome: Outcome, bounds: Bounds, cost_usd: Decimal) -> Decision:
    """No failure. But a call that was sent cost something, and no number of deploys shall buy it without end."""
    if outcome.sent_ago_s is not None and bounds.attempt > 1 and bounds.retry_left_s <= 0:
        return Decision(State.DEAD, False, 0, "Handed back, and the time for retries (retry_for_s) is over.")
    spent = bounds.spent_usd + cost_usd
    if cost_usd and bounds.max_cost_usd is not None and spent >= bounds.max_cost_usd:
        words = f"Handed back; lost attempts cost ${spent:f} of at most ${bounds.max_cost_usd:f}: dead-lettered."
        return Decision(State.DEAD, False, 0, words)
    return Decision(State.QUEUED, False, 0, "Handed back by its worker, which drains or missed its slot; no failure.")


def kept(outcome: Outcome) -> Outcome:
    """Of a job with `on_interrupt: keep`: a stream that broke after its first text is an answer."""
    if outcome.kind not in BREAKS or outcome.partial is None or not outcome.output_text:
        return outcome
    return replace(outcome, kind=Kind.INTERRUPTED, output=outcome.partial)


def is_rate_limit(outcome: Outcome) -> bool:
    """Whether the provider asked for patience, of all calls: its pool waits, so the job needs no delay of its own."""
    error = outcome.error
    if outcome.kind is not Kind.REJECTED or error is None:
        return False
    return error.provider_status == 429 or error.code in RATE_LIMIT_CODES


QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
DETERMINISTIC_CODES = frozenset(
    {
        "context_length_exceeded",
        "content_policy_violation",
        "content_filter",
        "invalid_prompt",
        "invalid_request_error",
        "invalid_image",
        "model_not_found",
        "string_above_max_length",
        "unsupported_parameter",
    }
)
SLOW_DOWN_CODE = "slow_down"
# The last one is Anthropic's. Inside a stream they come without a status.
RATE_LIMIT_CODES = frozenset({SLOW_DOWN_CODE, "rate_limit_exceeded", "rate_limit_error"})
NOT_NOW_CODES = RATE_LIMIT_CODES | {"overloaded_error", "server_overloaded", "server_is_overloaded"}


def classify(status: int | None, code: str | None) -> Kind:
    """What a provider's error means, by its HTTP status and its code. `status` is None for one inside a stream."""
    if code in QUOTA_CODES or status in (401, 402, 403):
        return Kind.PROVIDER_REFUSED
    if code in DETERMINISTIC_CODES or status in (400, 404, 405, 410, 411, 413, 414, 415, 422, 431):
        return Kind.DETERMINISTIC
    if code in NOT_NOW_CODES or status in (408, 409, 425, 429, 503):  # 409: OpenAI's lock time-out
        return Kind.REJECTED
    if status is None or 500 <= status <= 599:  # None: the call was taken, and may have been billed
        return Kind.UNKNOWN
    return Kind.UNRECOGNISED
