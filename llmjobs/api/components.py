"""The JSON schemas of what the API takes and answers, with examples. schema.py refers to them by name."""

from llmjobs.api.json_schema import (
    COUNT,
    COUNTS,
    DOLLARS,
    METADATA,
    PRIORITY,
    SECONDS,
    TEXT,
    TIME,
    Json,
    list_of,
    nullable,
    object_of,
    ref,
)  # fmt: skip
from llmjobs.api.submission_schema import SUBMISSION
from llmjobs.states import Endpoint, EventType, Size, State

BLOCKED_BY = [
    "rate_limit", "client_rate_limit", "client_concurrency", "model_concurrency", "client_paused",
    "model_paused", "provider_paused", "provider_down", "provider_quota", "provider_auth", "claims_paused",
    "no_worker",
]  # fmt: skip

JOB = object_of(
    {
        "id": {"type": "string", "format": "uuid"},
        "object": {"const": "job"},
        "status": {"type": "string", "enum": list(State)},
        "client": TEXT,
        "tier": TEXT,
        "endpoint": {"type": "string", "enum": list(Endpoint)},
        "model": TEXT,
        "priority": PRIORITY,
        "size": {"type": "string", "enum": [size.word for size in Size]},
        "metadata": METADATA,
        "user": nullable(TEXT),
        "idempotency_key": nullable(TEXT),
        "prompt_hash": {**nullable(TEXT), "description": "null once the request was erased."},
        "estimate": object_of({"input_tokens": COUNT, "output_tokens": COUNT}),
        "position": {
            **nullable(COUNT),
            "description": "Starts expected in its pool before it: 0 starts next. Exact to 1,000, then rounded.",
        },
        "eta_s": {**nullable(SECONDS), "description": "Seconds until it is expected to start."},
        "blocked_by": {
            "anyOf": [{"type": "string", "enum": BLOCKED_BY}, {"type": "null"}],
            "description": "Why it does not run now.",
        },
        "attempt": {**COUNT, "description": "Claims so far."},
        "failures": {**COUNT, "description": "Attempts that ended in error; bounded by max_attempts."},
        "max_attempts": {"type": "integer", "minimum": 1},
        "timeout_s": SECONDS,
        "cancel_requested": {"type": "boolean"},
        "created_at": TIME,
        "available_at": TIME,
        "expires_at": nullable(TIME),
        "started_at": {**nullable(TIME), "description": "Of the latest attempt."},
        "finished_at": nullable(TIME),
        "output": {
            "description": "The provider's own response body.",
            "anyOf": [{"type": "object"}, {"type": "null"}],
        },
        "output_text": {**TEXT, "description": "The text so far, also while it runs."},
        "usage": {
            "description": "As the provider counts it.",
            "anyOf": [{"type": "object"}, {"type": "null"}],
        },
        "cost_usd": {**nullable(DOLLARS), "description": "Of all attempts together."},
        "error": nullable(ref("JobError")),
        "links": object_of(
            {name: {"type": "string", "format": "uri-reference"} for name in ("self", "events", "websocket", "cancel")}
        ),
    }
)

SCHEMAS: dict[str, Json] = {
    "Submission": SUBMISSION,
    "Job": JOB,
    "JobError": object_of(
        {
            "code": TEXT,
            "message": nullable(TEXT),
            "class": {
                "anyOf": [
                    {"type": "string", "enum": ["transient", "deterministic", "unknown"]},
                    {"type": "null"},
                ]
            },
            "provider_status": nullable({"type": "integer"}),
            "attempt": nullable(COUNT),
        }
    ),
    "JobList": object_of(
        {
            "object": {"const": "list"},
            "data": list_of("Job"),
            "next": nullable(TEXT),
            "searched_to": {
                **nullable(TEXT),
                "description": "Of a search: when the last job was submitted that was looked at; null: all were.",
            },
        },
        required=["object", "data", "next"],
    ),
    "Model": object_of(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": {"type": "integer", "description": "Unix time, in seconds."},
            "owned_by": {**TEXT, "description": "Its provider."},
            "context_window": nullable(COUNT),
            "limits": object_of({"rpm": COUNT, "tpm": COUNT, "max_running": nullable(COUNT)}),
            "prices": object_of({"input_usd_per_mtok": nullable(DOLLARS), "output_usd_per_mtok": nullable(DOLLARS)}),
            "fallback": nullable(TEXT),
            "is_paused": {"type": "boolean"},
        }
    ),
    "ModelList": object_of({"object": {"const": "list"}, "data": list_of("Model")}),
    "Stats": object_of(
        {
            "total": COUNT,
            "queued": COUNT,
            "running": COUNT,
            "enqueued_total": {**COUNT, "description": "Jobs ever submitted, those removed since included."},
            "dequeued_total": {**COUNT, "description": "Those of them that do not wait any more."},
            "by_priority": COUNTS,
            "by_client": {**COUNTS, "description": "The 1,000 clients with the most jobs."},
            "pending_by_priority": COUNTS,
            "by_tier": COUNTS,
            "by_status": COUNTS,
            "wait_s": object_of({"p50": nullable(SECONDS), "p95": nullable(SECONDS)}),
            "oldest_queued_s": nullable(SECONDS),
        }
    ),
    "Event": object_of(
        {
            "id": {**TEXT, "description": "To go on from, as `Last-Event-ID`."},
            "event": {"type": "string", "enum": list(EventType)},
            "data": {**TEXT, "description": "JSON; of `done` it is the job."},
            "retry": TEXT,
        },
        required=["event", "data"],
    ),
    "Error": object_of(
        {"error": object_of({"code": TEXT, "message": TEXT, "type": TEXT, "param": nullable(TEXT)})},
        example={
            "error": {
                "code": "missing_required_parameter",
                "message": "expected a string, got none",
                "type": "invalid_request_error",
                "param": "model",
            }
        },
    ),
}

_EXAMPLE_ID = "019a8f3c-5d2e-7b41-9c6a-2f4e8d1b7a90"
_EXAMPLE_PATH = f"/api/jobs/{_EXAMPLE_ID}"
JOB_EXAMPLE: Json = {
    "id": _EXAMPLE_ID,
    "object": "job",
    "status": State.QUEUED,
    "client": "acme",
    "tier": "pro",
    "endpoint": Endpoint.CHAT,
    "model": "gpt-4.1-mini",
    "priority": "normal",
    "size": "short",
    "metadata": {"case": "42"},
    "user": None,
    "idempotency_key": None,
    "prompt_hash": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "estimate": {"input_tokens": 41, "output_tokens": 180},
    "position": 12,
    "eta_s": 3.5,
    "blocked_by": None,
    "attempt": 0,
    "failures": 0,
    "max_attempts": 5,
    "timeout_s": 120,
    "cancel_requested": False,
    "created_at": "2026-11-21T09:30:00.000Z",
    "available_at": "2026-11-21T09:30:00.000Z",
    "expires_at": None,
    "started_at": None,
    "finished_at": None,
    "output": None,
    "output_text": "",
    "usage": None,
    "cost_usd": None,
    "error": None,
    "links": {
        "self": f"https://example.com{_EXAMPLE_PATH}",
        "events": f"https://example.com{_EXAMPLE_PATH}/events",
        "websocket": f"wss://example.com/ws/jobs/{_EXAMPLE_ID}/",
        "cancel": f"https://example.com{_EXAMPLE_PATH}/cancel",
    },
}
STREAM_EXAMPLE = (
    f'id: 2097152\nevent: {EventType.STATUS}\ndata: {{"status": "running", "attempt": 1}}\n\n'
    f'id: 2097153\nevent: {EventType.DELTA}\ndata: {{"text": "Hello"}}\n\n'
)
