"""The JSON schemas of what the API takes and answers, with examples. schema.py refers to them by name."""

from typing import Any

from llmjobs.conf import conf
from llmjobs.states import Endpoint, EventType, Priority, Size, State
from llmjobs.submissions import DELAY_MAX_S, MODEL_CHARS_MAX, USER_CHARS_MAX, WHEN_LIMITED

Json = dict[str, Any]


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Json, *, required: list[str] | None = None, **more: Any) -> Json:
    """An object of exactly these properties; all are required where `required` does not say."""
    names = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
        **more,
    }


def _nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _number(least: float, most: float, description: str, **more: Any) -> Json:
    return {"type": "number", "minimum": least, "maximum": most, "description": description, **more}


def _list_of(name: str) -> Json:
    return {"type": "array", "items": ref(name)}


TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
SECONDS: Json = {"type": "number", "minimum": 0}
DOLLARS: Json = {"type": "number", "minimum": 0}
TIME: Json = {"type": "string", "format": "date-time"}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
METADATA: Json = {"type": "object", "additionalProperties": {"type": "string"}}
PRIORITY: Json = {"type": "string", "enum": [priority.word for priority in Priority]}
BLOCKED_BY = [
    "rate_limit", "client_rate_limit", "client_concurrency", "model_concurrency", "client_paused",
    "model_paused", "provider_paused", "provider_down", "provider_quota", "provider_auth", "claims_paused",
    "no_worker",
]  # fmt: skip

SUBMISSION = _object(
    {
        "model": {
            **TEXT,
            "minLength": 1,
            "maxLength": MODEL_CHARS_MAX,
            "description": "A name of `GET /api/models`.",
        },
        "messages": {
            "type": "array",
            "items": {"type": "object"},
            "description": "A chat, as `/v1/chat/completions` takes it.",
        },
        "input": {
            "description": "As `/v1/responses` and `/v1/embeddings` take it.",
            "anyOf": [TEXT, {"type": "array"}],
        },
        "body": {
            "type": "object",
            "description": "The provider's whole request, instead of messages or input.",
        },
        "endpoint": {
            "type": "string",
            "enum": list(Endpoint),
            "description": "By default as messages or input suggest.",
        },
        "priority": {"anyOf": [PRIORITY, {"type": "integer", "enum": list(Priority)}], "default": "normal"},
        "delay_s": _number(0, DELAY_MAX_S, "Start no sooner.", default=0),
        "expires_in_s": _nullable(_number(0.001, DELAY_MAX_S, "Expire if not started by then.")),
        "timeout_s": _number(0.001, conf.timeout_max_s, "Of one attempt.", default=conf.timeout_s),
        "max_attempts": {
            "type": "integer",
            "minimum": 1,
            "maximum": conf.max_attempts_max,
            "default": conf.max_attempts,
            "description": "Failures after which it is dead.",
        },
        "retry_for_s": _number(0, conf.retry_for_max_s, "Bounds all retries together.", default=conf.retry_for_s),
        "max_cost_usd": _nullable(_number(0.000001, 1_000_000, "What lost attempts may cost before no more are made.")),
        "on_interrupt": {"type": "string", "enum": ["restart"], "default": "restart"},
        "dedupe": {"type": "null", "description": "Not served."},
        "when_limited": {
            "type": "string",
            "enum": list(WHEN_LIMITED),
            "default": WHEN_LIMITED[0],
            "description": "Where the client's own limits a minute leave no room now; a delayed job always waits.",
        },
        "webhook_url": {"type": "null", "description": "Not served."},
        "user": {
            **TEXT,
            "minLength": 1,
            "maxLength": USER_CHARS_MAX,
            "description": "The end user on whose behalf it is made.",
        },
        "metadata": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": conf.metadata_value_chars_max},
            "propertyNames": {"minLength": 1, "maxLength": conf.metadata_key_chars_max},
            "maxProperties": conf.metadata_keys_max,
        },
    },
    required=["model"],
)

JOB = _object(
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
        "user": _nullable(TEXT),
        "idempotency_key": _nullable(TEXT),
        "prompt_hash": {**_nullable(TEXT), "description": "null once the request was erased."},
        "estimate": _object({"input_tokens": COUNT, "output_tokens": COUNT}),
        "position": {
            **_nullable(COUNT),
            "description": "Starts expected in its pool before it: 0 starts next. Exact to 1,000, then rounded.",
        },
        "eta_s": {**_nullable(SECONDS), "description": "Seconds until it is expected to start."},
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
        "expires_at": _nullable(TIME),
        "started_at": {**_nullable(TIME), "description": "Of the latest attempt."},
        "finished_at": _nullable(TIME),
        "output": {
            "description": "The provider's own response body.",
            "anyOf": [{"type": "object"}, {"type": "null"}],
        },
        "output_text": {**TEXT, "description": "The text so far, also while it runs."},
        "usage": {
            "description": "As the provider counts it.",
            "anyOf": [{"type": "object"}, {"type": "null"}],
        },
        "cost_usd": {**_nullable(DOLLARS), "description": "Of all attempts together."},
        "error": _nullable(ref("JobError")),
        "links": _object(
            {name: {"type": "string", "format": "uri-reference"} for name in ("self", "events", "websocket", "cancel")}
        ),
    }
)

SCHEMAS: dict[str, Json] = {
    "Submission": SUBMISSION,
    "Job": JOB,
    "JobError": _object(
        {
            "code": TEXT,
            "message": _nullable(TEXT),
            "class": {
                "anyOf": [
                    {"type": "string", "enum": ["transient", "deterministic", "unknown"]},
                    {"type": "null"},
                ]
            },
            "provider_status": _nullable({"type": "integer"}),
            "attempt": _nullable(COUNT),
        }
    ),
    "JobList": _object({"object": {"const": "list"}, "data": _list_of("Job"), "next": _nullable(TEXT)}),
    "Model": _object(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": {"type": "integer", "description": "Unix time, in seconds."},
            "owned_by": {**TEXT, "description": "Its provider."},
            "context_window": _nullable(COUNT),
            "limits": _object({"rpm": COUNT, "tpm": COUNT, "max_running": _nullable(COUNT)}),
            "prices": _object({"input_usd_per_mtok": _nullable(DOLLARS), "output_usd_per_mtok": _nullable(DOLLARS)}),
            "fallback": _nullable(TEXT),
            "is_paused": {"type": "boolean"},
        }
    ),
    "ModelList": _object({"object": {"const": "list"}, "data": _list_of("Model")}),
    "Stats": _object(
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
            "wait_s": _object({"p50": _nullable(SECONDS), "p95": _nullable(SECONDS)}),
            "oldest_queued_s": _nullable(SECONDS),
        }
    ),
    "Error": _object(
        {"error": _object({"code": TEXT, "message": TEXT, "type": TEXT, "param": _nullable(TEXT)})},
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
SUBMISSION_EXAMPLES: Json = {
    "chat": {
        "summary": "A chat",
        "value": {
            "model": "gpt-4.1-mini",
            "messages": [{"role": "user", "content": "Summarise the case in three sentences: …"}],
            "metadata": {"case": "42"},
        },
    },
    "whole_request": {
        "summary": "The provider's whole request, urgent",
        "value": {
            "model": "gpt-4.1-mini",
            "priority": "high",
            "body": {
                "messages": [{"role": "user", "content": "Say hello."}],
                "temperature": 0,
                "max_completion_tokens": 64,
            },
        },
    },
    "embedding": {
        "summary": "An embedding, tonight",
        "value": {
            "model": "text-embedding-3-small",
            "endpoint": Endpoint.EMBEDDINGS,
            "input": "A sentence.",
            "delay_s": 21600,
        },
    },
}
STREAM_EXAMPLE = (
    f'id: 2097152\nevent: {EventType.STATUS}\ndata: {{"status": "running", "attempt": 1}}\n\n'
    f'id: 2097153\nevent: {EventType.DELTA}\ndata: {{"text": "Hello"}}\n\n'
)
