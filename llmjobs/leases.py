"""The values that pass between a worker and the verbs: what a claim brings, and how an attempt ended.

A lease is a job's id, its attempt's number and the worker: every write to a running job names all three.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

from llmjobs.events import Wake


@dataclass(slots=True)
class Claimed:
    """A job that this worker now holds, with all that its attempt needs. `charged` is in weighted tokens."""

    id: int
    public_id: UUID
    attempt: int
    epoch: int
    failures: int
    endpoint: str
    size: int
    has_handler: bool
    keeps_partial: bool  # a stream that breaks ends the job, with what had come
    client_id: int
    client: str
    tier: str
    max_attempts: int
    timeout_s: float
    charged: float
    est_input_tokens: int
    est_output_tokens: int
    retry_left_s: float
    waited_s: float
    body: str
    max_cost_usd: Decimal | None
    spent_usd: Decimal
    pool_id: int
    model: str
    upstream_name: str
    input_usd_per_mtok: Decimal | None
    output_usd_per_mtok: Decimal | None
    provider: str
    base_url: str
    api_key_env: str
    has_background: bool  # the provider goes on with /v1/responses by itself
    resume_id: str | None  # such a response, that an attempt before began
    claimed_at: float  # by the database's clock, seconds of the Unix clock
    send_in_s: float  # from then on: its slot in the limits
    late_max_s: float  # after its slot it is not sent any more, or the limits would not hold
    slack_s: float  # of that, what its slot has room for in any case
    rpm: float  # what its pool keeps to, as far as known
    tpm: float
    traceparent: str | None = None  # the trace that its attempts go on with
    span_before: str | None = None  # there, of the attempt before this one


@dataclass(slots=True)
class Claim:
    """What a claim brought, and whether asking again at once may bring more."""

    jobs: list[Claimed] = field(default_factory=list)
    expired: list[Wake] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)  # jobs that others hold locked
    again: bool = False
    clock: float = 0.0  # the database's at the claim, seconds of the Unix clock
    opens_in_s: float | None = None  # when the pool's limits let it go on; None: they do now
    is_account_full: bool = False  # its account runs all that it may: any end there may open it
    wake_in_s: float | None = None  # when the first of the clients that were met at their limits may go on


@dataclass(frozen=True, slots=True)
class Settlement:
    """One attempt's end, with its lease; the columns are those of the attempt, the result and the job."""

    job_id: int
    attempt: int
    state: str
    outcome: str
    is_failure: bool
    delay_s: float
    decision: str
    error_code: str | None = None
    error_message: str | None = None
    error_class: str | None = None
    provider_status: int | None = None
    provider_request_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None  # weighted tokens; None: the charge stands
    cost_usd: str | None = None
    usage: Any = None
    output: str | None = None
    output_text: str = ""
    sent_ago_s: float | None = None
    first_token_ago_s: float | None = None
    span_id: str | None = None

    def json(self) -> dict[str, Any]:
        """A row for settle.sql, which reads null where a column is missing; without `asdict`, which copies answers."""
        return {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}


def handed_back(job_id: int, attempt: int) -> Settlement:
    """Of a claim whose acknowledgement was lost: nobody runs it, and nothing was sent."""
    return Settlement(
        job_id=job_id,
        attempt=attempt,
        state="queued",
        outcome="released",
        is_failure=False,
        delay_s=0,
        decision="Claimed, but the acknowledgement was lost: handed back unsent.",
        input_tokens=0,
        output_tokens=0,
        cost=0,
    )
