"""The canonical line of an attempt: one each at its end, by whoever settles it or takes it back from a lost worker.

Owns the fields and their names. Invariant: never a prompt, an answer or a key, nor words of a provider, which may quote
them: of an error the code alone, and what a provider chose as a code or an id can't forge a field or a line.

`state` is what was decided of the job; `delay_s` when it is tried again. What is not known is `-`.
"""

import logging
import re
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from llmjobs import tracing

logger = logging.getLogger("llmjobs.attempt")


class End(NamedTuple):
    """`job`: its public id. Times in seconds; `waited_s` until the claim, `ran_s` since then."""

    job: UUID
    attempt: int
    client: str
    tier: str
    pool: str
    outcome: str
    state: str
    error: str | None
    waited_s: float
    ran_s: float
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Decimal | None
    first_token_s: float | None
    delay_s: float
    failures: int
    provider_status: int | None
    provider_request_id: str | None
    worker: object
    traceparent: str | None


def log_end(end: End) -> None:
    logger.info(
        "event=attempt job=%s attempt=%s client=%s tier=%s pool=%s outcome=%s state=%s error=%s "
        "waited_s=%.3f ran_s=%.3f input_tokens=%s output_tokens=%s cost_usd=%s first_token_s=%s delay_s=%.3f "
        "failures=%s provider_status=%s provider_request_id=%s worker=%s trace=%s",
        end.job, end.attempt, end.client, end.tier, end.pool, end.outcome, end.state,
        "-" if end.error is None else word(end.error), end.waited_s, end.ran_s,
        _known(end.input_tokens), _known(end.output_tokens), "-" if end.cost_usd is None else f"{end.cost_usd:f}",
        "-" if end.first_token_s is None else f"{end.first_token_s:.3f}", end.delay_s, end.failures,
        _known(end.provider_status), word(end.provider_request_id or "-"), _known(end.worker),
        tracing.trace_id_of(end.traceparent) or "-",
    )  # fmt: skip


def word(text: str) -> str:
    """A provider's code as one word, so that it can't forge a field or a line of the log."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "?", text[:64]) or "-"


def _known(value: object) -> object:
    return "-" if value is None else value
