"""What it means that a call did not come to an answer: an exception of the transport, the SDK or a reader, judged.

Owns the words about it. Does not own what a provider's code means (`outcomes.classify`), nor what becomes of the job.
"""

from collections.abc import Mapping
from typing import NamedTuple

import httpx2
import openai

from llmjobs.outcomes import MESSAGE_CHARS_MAX, Error, Kind, classify
from llmjobs.providers.assembly import StreamError, parse_json
from llmjobs.providers.calls import Call
from llmjobs.providers.headers import retry_after_s

CODE_CHARS_MAX = 128
NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)


class Truncated(Exception):
    """The connection ended before the answer did."""


class End(NamedTuple):
    kind: Kind
    error: Error
    retry_after_s: float | None = None
    is_break: bool = False  # the way to the answer failed, which says nothing of the answer


EXPECTED = (
    TimeoutError,
    openai.APIStatusError,
    openai.APIConnectionError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    Truncated,
    StreamError,
    ValueError,
)


def judged(call: Call, error: BaseException, *, is_total: bool) -> End:
    """What one of EXPECTED means for the call. `is_total`: a TimeoutError is of the whole call's time."""
    match error:
        case TimeoutError():
            return End(Kind.UNKNOWN, Error("timeout", _late(call, is_total)))
        case openai.APIStatusError():
            return _refused(call, error.response.status_code, error.response.headers, error.response.content)
        case openai.APIConnectionError():
            return _disconnected(error.__cause__ or error)
        case httpx2.HTTPError() | httpx2.InvalidURL():
            return _disconnected(error)
        case Truncated():
            return End(Kind.UNKNOWN, Error("stream_truncated", str(error)), is_break=True)
        case StreamError():
            code = (error.code or "stream_error")[:CODE_CHARS_MAX]
            return End(classify(None, error.code), Error(code, _short(error.message)))
    return End(Kind.UNKNOWN, Error("malformed_response", _short(f"expected JSON, got: {error}")))


def _refused(call: Call, status: int, headers: Mapping[str, str], content: bytes) -> End:
    """An answer with an error's status: what it means is for `classify` to say."""
    call.hear(status, headers)
    code, message = None, ""
    try:
        body = parse_json(content)
        detail = body.get("error", body) if isinstance(body, dict) else {}
        if isinstance(detail, dict):
            code, message = detail.get("code") or detail.get("type"), detail.get("message") or ""
    except ValueError:
        message = content[:200].decode("utf-8", "replace")
    kind = classify(status, None if code is None else str(code))
    if kind is Kind.REJECTED and status == 429 and str(message).lower().startswith("request too large"):
        kind = Kind.DETERMINISTIC  # larger than the whole limit, in OpenAI's words: no time is the right one
    said = _short(str(message) or f"HTTP status {status}")
    error = Error(str(code or f"http_{status}")[:CODE_CHARS_MAX], said, status)
    return End(kind, error, retry_after_s(headers), is_break=True)


def _disconnected(error: BaseException) -> End:
    name, said = type(error).__name__, _short(str(error))
    if isinstance(error, NOT_SENT):
        return End(Kind.NOT_SENT, Error("connection_failed", f"{name}: {said}"), is_break=True)
    return End(Kind.UNKNOWN, Error("connection_lost", f"{name}: {said}"), is_break=True)


def _late(call: Call, is_total: bool) -> str:
    if is_total:
        return f"expected the whole answer within {call.timeouts.total_s:g} s"
    if call.first_token_at is None:
        return f"expected the first token within {call.timeouts.first_token_s:g} s"
    return f"expected the next token within {call.timeouts.between_tokens_s:g} s"


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"
