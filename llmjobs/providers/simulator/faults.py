"""What can go wrong with a call, by name, and when it does: the vocabulary of faults and of their orders.

Pure. Owns the names, the grammar of an order and the errors' texts; `answers.py` carries a fault out.
An order is `name[:times[:value]]`, several joined by commas and used up one after the other:

    server_error                         every call
    server_error:2                       the first two calls of this job, then it succeeds
    server_error:1,reset_midstream:1     first this, then that, then it succeeds
    slow_first_token::5                  every call, with the value 5

The value is, for

    rate_limit, slow_down, overloaded    Retry-After in seconds (without a value: 1)
    slow_first_token                     seconds until the first token (30)
    stall, stall_midstream               seconds until the server gives up and closes (never)
    reset_midstream, truncate, malformed, stream_error
                                         the output tokens that are sent before it (half of them)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# Answered with an error status and OpenAI's error body.
STATUS_FAULTS = (
    "context_length",
    "content_policy",
    "invalid_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "rate_limit",
    "slow_down",
    "insufficient_quota",
    "server_error",
    "bad_gateway",
    "overloaded",
)
# Something is wrong with the answer, or there is none.
WIRE_FAULTS = (
    "refuse",  # closed at once, without an answer; globally: nobody listens
    "reset",  # RST before any answer
    "reset_midstream",
    "truncate",  # the stream ends cleanly, but without [DONE] or response.completed
    "malformed",  # JSON that does not parse
    "stall",  # headers, then nothing
    "stall_midstream",
    "slow_first_token",
    "stream_error",  # an error event in a stream that began with 200
    "html",  # a proxy's error page, status 502
    "empty",  # 200, and no body
)
FAULTS = frozenset((*STATUS_FAULTS, *WIRE_FAULTS))
NO_FAULT = "none"  # an order that exempts a call from the faults that are on for all

# What `fail_rate` draws from if no fault is named: each is worth a retry.
MIXED_FAULTS = ("server_error", "overloaded", "reset", "reset_midstream")

# The account is not even looked at: these calls count in no limit.
UNCOUNTED_FAULTS = frozenset(("refuse", "unauthorized", "forbidden"))


class Fault(NamedTuple):
    """One order. `times` None: every call."""

    name: str
    times: int | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error answer in OpenAI's shape."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | int | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


# A server error, as an answer of its own or in the middle of a stream.
SERVER_ERROR = ApiError(
    500,
    "The server had an error while processing your request. Sorry about that!",
    "server_error",
    "server_error",
)


def parse_orders(text: str) -> tuple[Fault, ...]:
    """The faults that `text` orders. Raises ValueError that says what was expected and what came."""
    return tuple(_parse_order(part.strip()) for part in text.split(","))


def due(orders: tuple[Fault, ...], nth: int) -> Fault | None:
    """The fault of the `nth` call of a job, counted from 0: each order takes its `times` calls in turn."""
    for fault in orders:
        if fault.times is None or nth < fault.times:
            return None if fault.name == NO_FAULT else fault
        nth -= fault.times
    return None


def retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(-int(-seconds // 1)), "retry-after-ms": str(-int(-seconds * 1000 // 1))}


def error_of(fault: Fault, *, model: str, prompt_param: str, input_tokens: int) -> ApiError:
    """The error that a fault of STATUS_FAULTS is answered with."""
    wait_s = 1.0 if fault.value is None else fault.value
    match fault.name:
        case "context_length":
            message = (
                f"This model's maximum context length is {max(1, input_tokens - 1)} tokens. However, your "
                f"messages resulted in {input_tokens} tokens. Please reduce the length of the messages."
            )
            return ApiError(400, message, code="context_length_exceeded", param=prompt_param)
        case "content_policy":
            message = "Your request was rejected as a result of our safety system."
            return ApiError(400, message, code="content_policy_violation")
        case "invalid_request":
            return ApiError(
                400,
                "Invalid value for 'temperature': expected at most 2.",
                code="invalid_value",
                param="temperature",
            )
        case "unauthorized":
            return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        case "forbidden":
            return ApiError(
                403, f"You are not allowed to sample from the model {model}.", code="insufficient_permissions"
            )
        case "not_found":
            message = f"The model `{model}` does not exist or you do not have access to it."
            return ApiError(404, message, code="model_not_found")
        case "rate_limit":
            message = f"Rate limit reached for {model} on requests per min (RPM). Please try again in {wait_s:g}s."
            return ApiError(429, message, "requests", "rate_limit_exceeded", headers=retry_after(wait_s))
        case "slow_down":
            message = "Your request rate rose too fast. Please slow down, then increase it gradually."
            return ApiError(429, message, "rate_limit_error", "slow_down", headers=retry_after(wait_s))
        case "insufficient_quota":
            message = "You exceeded your current quota, please check your plan and billing details."
            headers = {"x-should-retry": "false"}
            return ApiError(429, message, "insufficient_quota", "insufficient_quota", headers=headers)
        case "server_error":
            return SERVER_ERROR
        case "bad_gateway":
            return ApiError(502, "Bad gateway.", "cf_bad_gateway", 502)
        case "overloaded":
            message = "Our servers are currently overloaded. Please try again later."
            headers = retry_after(wait_s)
            return ApiError(503, message, "service_unavailable_error", "server_is_overloaded", headers=headers)
    raise ValueError(f"{fault.name} is not answered with an error status")


def _parse_order(text: str) -> Fault:
    name, _, rest = text.partition(":")
    times_text, _, value_text = rest.partition(":")
    if name not in FAULTS and name != NO_FAULT:
        raise ValueError(f"expected one of {', '.join(sorted(FAULTS))} or {NO_FAULT}, got {name!r}")
    try:
        times = int(times_text) if times_text else None
        value = float(value_text) if value_text else None
    except ValueError:
        times, value = -1, None
    if (times is not None and times < 0) or (value is not None and not 0 <= value < 1e9):
        raise ValueError(f"expected name[:times[:value]] with numbers from 0, got {text!r}")
    return Fault(name, times, value)
