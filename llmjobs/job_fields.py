"""The fields of a job that is asked for in Python, as types: what an editor completes, and a type checker holds to.

Owns their names and kinds. Does not own what they may hold: `submissions.py` checks that, for Python as for HTTP.
Invariant, held by a test: the names are those of POST /api/jobs; None says what leaving a field out says.
"""

from collections.abc import Mapping
from typing import Any, Required, TypedDict


class JobFields(TypedDict, total=False):
    """What POST /api/jobs takes. Exactly one of messages, input and body is needed; times are in seconds."""

    model: Required[str]
    messages: list[Any] | None  # of a chat completion
    input: str | list[Any] | None  # of a response, or what to embed
    body: Mapping[str, Any] | None  # the provider's whole request, untouched
    endpoint: str | None  # "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
    priority: str | int | None  # "critical", "high", "normal", "low", "background"
    delay_s: float | None
    expires_in_s: float | None
    timeout_s: float | None
    max_attempts: int | None
    retry_for_s: float | None
    max_cost_usd: float | None
    on_interrupt: str | None  # "restart", "keep"
    dedupe: str | None  # "none", "join"
    when_limited: str | None  # "wait", "reject"
    webhook_url: str | None
    user: str | None
    metadata: Mapping[str, str] | None


class ManyJobFields(JobFields, total=False):
    """One of many: beside these, what `submit` takes beside these."""

    idempotency_key: str | None
    on_settled: str | None  # the dotted path of a function
