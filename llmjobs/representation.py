"""A job as the contract shows it, and an error likewise: the one place that renders either.

Reads a job loaded with JOB_RELATED; the place in the queue comes from `places.py`, for all jobs at once.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from llmjobs.models import Job, JobRequest, JobResult
from llmjobs.outcomes import QUOTA_CODES
from llmjobs.places import Place, places
from llmjobs.sql import load
from llmjobs.states import Priority, Size, State


def job_json(job: Job, *, base_url: str = "", with_place: bool = True) -> dict[str, Any]:
    return jobs_json([job], base_url=base_url, with_place=with_place)[0]


def jobs_json(jobs: Iterable[Job], *, base_url: str = "", with_place: bool = True) -> list[dict[str, Any]]:
    """`base_url` is scheme and host, without a slash at the end; without it links are paths."""
    jobs = list(jobs)
    where = places([job for job in jobs if job.state == State.QUEUED]) if with_place else {}
    texts = streamed_texts([job.id for job in jobs if job.state == State.RUNNING])
    return [_job(job, where.get(job.id), texts.get(job.id), base_url) for job in jobs]


def streamed_texts(job_ids: list[int]) -> dict[int, str]:
    """The text so far of running jobs: the deltas of the present attempt."""
    if not job_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(load("streamed_texts"), {"ids": job_ids})
        return dict(cursor.fetchall())


def error_body(
    code: str, message: str, type: str = "invalid_request_error", param: str | None = None
) -> dict[str, Any]:
    """OpenAI's error shape."""
    return {"error": {"code": code, "message": message, "type": type, "param": param}}


def _job(job: Job, place: Place | None, text: str | None, base_url: str) -> dict[str, Any]:
    request: JobRequest | None = getattr(job, "request", None)
    result: JobResult | None = getattr(job, "result", None)
    path = f"/api/jobs/{job.public_id}"
    return {
        "id": str(job.public_id),
        "object": "job",
        "status": job.state,
        "client": job.client.name,
        "tier": job.tier.name,
        "endpoint": job.endpoint,
        "model": (job.home or job.pool).name,  # what was asked for, whoever serves it
        "priority": Priority(job.priority).word,
        "size": Size(job.size).word,
        "metadata": request.metadata if request else {},
        "user": request.user if request else None,
        "idempotency_key": request.idempotency_key if request else None,
        "prompt_hash": (request.prompt_hash or None) if request else None,  # "": erased, but for its key
        "estimate": {"input_tokens": job.est_input_tokens, "output_tokens": job.est_output_tokens},
        "position": place.position if place else None,
        "eta_s": place.eta_s if place else None,
        "blocked_by": place.blocked_by if place else _refusal(job, result),
        "attempt": job.attempt,
        "failures": job.failures,
        "max_attempts": job.max_attempts,
        "timeout_s": int(job.timeout_s) if float(job.timeout_s).is_integer() else job.timeout_s,
        "cancel_requested": job.cancel_requested_at is not None,
        "created_at": time_json(job.created_at),
        "available_at": time_json(job.available_at),
        "expires_at": time_json(job.expires_at),
        "started_at": time_json(job.started_at),
        "finished_at": time_json(job.finished_at),
        "output": json.loads(result.output) if result and result.output is not None and job.is_terminal else None,
        "output_text": text
        if text is not None
        else result.output_text
        if result and job.state != State.RUNNING
        else "",
        "usage": result.usage if result else None,
        "cost_usd": float(result.cost_usd) if result and result.cost_usd is not None else None,
        "error": _error(result) if result and result.error_code else None,
        "links": {
            "self": base_url + path,
            "events": f"{base_url}{path}/events",
            "websocket": f"{_websocket(base_url)}/ws/jobs/{job.public_id}/",
            "cancel": f"{base_url}{path}/cancel",
        },
    }


def _refusal(job: Job, result: JobResult | None) -> str | None:
    """Why a job waits that its provider refused, and not for its own sake."""
    if job.state != State.SCHEDULED or result is None or result.error_class != "transient":
        return None
    if result.error_code in QUOTA_CODES or result.provider_status == 402:
        return "provider_quota"
    return {401: "provider_auth", 403: "provider_auth", 429: "rate_limit"}.get(result.provider_status or 0)


def _error(result: JobResult) -> dict[str, Any]:
    return {
        "code": result.error_code,
        "message": result.error_message,
        "class": result.error_class,
        "provider_status": result.provider_status,
        "attempt": result.error_attempt,
    }


def time_json(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _websocket(base_url: str) -> str:
    return base_url.replace("http", "ws", 1) if base_url.startswith("http") else base_url
