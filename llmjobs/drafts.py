"""What a submission becomes: the row that submit writes, and the Job made of what came back, without another query."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import connection

from llmjobs import lessons, limits
from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest
from llmjobs.estimates import estimate, estimated_usd
from llmjobs.ids import uuid7
from llmjobs.models import Client, Job, JobRequest, Model
from llmjobs.states import Priority
from llmjobs.submissions import Submission


@dataclass(frozen=True, slots=True)
class Draft:
    """A submission, the pool that serves it, and the row for submit.sql."""

    submission: Submission
    pool: Model
    row: dict[str, Any]


def draft(client: Client, asked: Submission, pool: Model, key: str | None, api_key_id: int | None = None) -> Draft:
    """Raises what `row` does."""
    return Draft(asked, pool, row(client, asked, pool, key, api_key_id))


def row(
    client: Client, asked: Submission, pool: Model, key: str | None, api_key_id: int | None = None
) -> dict[str, Any]:
    """For submit.sql. Raises InvalidRequest for a priority above the tier's, and for more tokens than may wait."""
    if asked.priority < client.tier.max_priority:
        most = Priority(client.tier.max_priority).word
        raise InvalidRequest(
            f"expected at most {most} in the tier {client.tier.name}, got {Priority(asked.priority).word}",
            param="priority",
            code="priority_not_allowed",
        )
    guess = estimate(
        asked.endpoint,
        asked.request,
        output_weight=pool.output_weight,
        default_output_tokens=lessons.output_tokens(pool, client),
        short_output_tokens=conf.short_output_tokens,
    )
    usd = estimated_usd(guess, pool.input_usd_per_mtok, pool.output_usd_per_mtok)
    made_of = {
        "public_id": str(uuid7()),
        "pool_id": pool.id,
        "shard_id": pool.shard_id,
        "client_id": client.id,
        "tier_id": client.tier_id,
        "endpoint": asked.endpoint,
        "priority": int(asked.priority),
        "size": int(guess.size),
        "est_input_tokens": guess.input_tokens,
        "est_output_tokens": guess.output_tokens,
        "max_output_tokens": guess.max_output_tokens,
        "est_cost": guess.cost,
        "est_usd": None if usd is None else str(usd),
        "max_attempts": asked.max_attempts,
        "timeout_s": asked.timeout_s,
        "retry_for_s": asked.retry_for_s,
        "delay_s": asked.delay_s,
        "expires_in_s": asked.expires_in_s,
        "has_webhook": asked.webhook_url is not None,
        "has_handler": asked.on_settled is not None,
        "keeps_partial": asked.keeps_partial,
        "is_rejected_when_limited": asked.is_rejected_when_limited and asked.delay_s <= 0,
        "body": asked.body,
        "prompt_hash": asked.prompt_hash,
        "metadata": asked.metadata,
        "user": asked.user,
        "max_cost_usd": None if asked.max_cost_usd is None else str(asked.max_cost_usd),
        "idempotency_key": key,
        "fingerprint": asked.fingerprint,
        "api_key_id": api_key_id,
        "webhook_url": asked.webhook_url,
        "on_settled": asked.on_settled,
        "task": asked.task,
    }
    limits.refuse_if_it_never_fits(client, made_of)
    return made_of


def made(client: Client, pool: Model, row: dict[str, Any], values: Sequence[Any]) -> Job:
    """`values`: what submit.sql returned for that row."""
    job_id, public_id, state, lane_order, created_at, available_at, retry_until, expires_at = values
    columns = {column.attname for column in Job._meta.concrete_fields} - {"public_id", "est_usd"}
    job = Job(
        **{name: value for name, value in row.items() if name in columns},
        est_usd=None if row["est_usd"] is None else Decimal(row["est_usd"]),
        id=job_id, public_id=public_id, state=state, lane_order=lane_order, created_at=created_at,
        available_at=available_at, retry_until=retry_until, expires_at=expires_at, attempt=0, failures=0, epoch=1,
    )  # fmt: skip
    job._state.adding, job._state.db = False, connection.alias
    job.pool, job.client, job.tier = pool, client, client.tier
    job._state.fields_cache["result"] = None  # it has none yet: no need to ask
    job.request = JobRequest(
        job_id=job_id, client_id=client.id, body=row["body"], prompt_hash=row["prompt_hash"],
        metadata=dict(row["metadata"]), user=row["user"], idempotency_key=row["idempotency_key"],
        fingerprint=row["fingerprint"], api_key_id=row["api_key_id"], webhook_url=row["webhook_url"],
        on_settled=row["on_settled"], traceparent=row.get("traceparent"), task=row["task"],
        max_cost_usd=None if row["max_cost_usd"] is None else Decimal(row["max_cost_usd"]),
    )  # fmt: skip
    return job
