"""What OpenAPI (3.1) says of the API: `/api/schema`, and `manage.py spectacular` where the site names
`Generator`.

Owns the operations, written out here because validation is `submissions.py`'s and rendering
`representation.py`'s, so that no serializer could be read for them. components.py has the schemas that they
refer to. Invariant, held by a test of each route: what the API answers is what is written here.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any, TypeVar

from django.conf import settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from llmjobs.api import components
from llmjobs.api.json_schema import MOMENT, SECONDS, SEQ, TIME, ref
from llmjobs.api.submission_schema import SUBMISSION_EXAMPLES
from llmjobs.conf import conf
from llmjobs.models.tenants import Scope
from llmjobs.states import Priority, State

Json = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])

SECURITY: list[Json] = [{"apiKey": []}, {"session": []}]

# The errors that any route may answer, and what others it may.
ALWAYS = {
    401: "No key, an unknown one, or one that expired or was revoked.",
    403: "The key lacks the scope, or the session's CSRF token is missing.",
    406: "`Accept` excludes JSON.",
    500: "An error of ours; its message has the request id.",
    503: "The database can't be reached; try again after `Retry-After` seconds.",
}
BAD_QUERY = {400: "An unknown query parameter, or a value that is not what was expected; `param` names it."}
TOO_MANY_VIEWERS = {429: "The client has too many streams open (`too_many_viewers`)."}
NO_JOB = {404: "No such job, or another client's."}

RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to ask again; while the job is not terminal.",
        "schema": {"type": "integer"},
    }
}
LIMIT_HEADERS = {
    "x-request-id": {
        "description": "The id under which the log has this request.",
        "schema": {"type": "string"},
    },
    **{
        f"x-ratelimit-{what}-{kind}": {"description": description.format(kind), "schema": {"type": type_}}
        for kind in ("requests", "tokens")
        for what, type_, description in (
            ("limit", "integer", "The client's own {} a minute, if limited."),
            ("remaining", "integer", "How many {} may still start at once; what is queued counts as used."),
            ("reset", "string", "Until all {} are free again, if none are added: `17ms`, `1s`, `6m0s`."),
        )
    },
}


def documented(operation_id: str) -> Callable[[Handler], Handler]:
    """Names the operation of a view's method."""

    def attach(handler: Handler) -> Handler:
        handler.operation = OPERATIONS[operation_id]  # type: ignore[attr-defined]
        return handler

    return attach


class WrittenSchema(AutoSchema):
    """Takes the operation as it is written, instead of reading it off a serializer."""

    def get_operation(self, path: str, path_regex: str, path_prefix: str, method: str, registry: Any) -> Json:
        operation: Json = deepcopy(getattr(self.view, method.lower()).operation)
        return operation


class Generator(SchemaGenerator):
    """What drf-spectacular finds in the URLs, and what it can't: the components, the keys, and the streams,
    which are no DRF views.
    """

    def get_schema(self, request: Any = None, public: bool = False) -> Json:
        schema: Json = super().get_schema(request, public)
        prefix = next((path.removesuffix("/jobs") for path in schema["paths"] if path.endswith("/jobs")), "")
        for path, operation_id in STREAMS.items():
            schema["paths"][prefix + path] = {"get": OPERATIONS[operation_id]}
        schema["components"] = {
            **schema["components"],
            "schemas": {**schema["components"].get("schemas", {}), **components.SCHEMAS},
            "securitySchemes": self.security_schemes,
        }
        schema["security"] = SECURITY
        plain: Json = json.loads(
            json.dumps(schema)
        )  # YAML can't write enums, and would write what is shared as references
        return plain

    @cached_property
    def security_schemes(self) -> Json:
        return {
            "apiKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key: `Authorization: Bearer llmj_…`.",
            },
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": settings.SESSION_COOKIE_NAME,
                "description": "The web session; methods that change something also need the CSRF token.",
            },
        }


def _operation(
    operation_id: str,
    summary: str,
    *,
    scope: str,
    answers: Mapping[int, Json],
    errors: Mapping[int, str] | None = None,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    description: str = "",
) -> Json:
    operation: Json = {
        "operationId": operation_id,
        "summary": summary,
        "description": f"{description}\n\nNeeds the scope `{scope}`.".strip(),
        "tags": ["streams" if operation_id.startswith("stream") else "jobs" if "job" in operation_id else "queue"],
        "parameters": parameters or [],
        "security": SECURITY,
        "responses": {
            **{str(status): answer for status, answer in answers.items()},
            **{str(status): _error(text) for status, text in sorted({**ALWAYS, **(errors or {})}.items())},
        },
    }
    if body:
        operation["requestBody"] = body
    return operation


def _json(description: str, schema: Json, example: Any = None, headers: Json | None = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {
        "description": description,
        "headers": {**LIMIT_HEADERS, **(headers or {})},
        "content": {"application/json": content},
    }


def _error(description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": ref("Error")}}}


def _query(name: str, description: str, schema: Json, **more: Any) -> Json:
    return {"in": "query", "name": name, "description": description, "schema": schema, **more}


def _some_of(words: list[str]) -> Json:
    one = f"({'|'.join(words)})"
    return {"type": "string", "pattern": f"^{one}(,{one})*$"}


def _header(name: str, description: str, schema: Json) -> Json:
    return {"in": "header", "name": name, "description": description, "schema": schema}


JOB_ID = {"in": "path", "name": "job_id", "required": True, "schema": {"type": "string", "format": "uuid"}}
WAIT = _query("wait", f"Seconds to wait for the job's end; past {conf.wait_max_s:g} they count as these.", SECONDS)
AFTER = _query("after", "The number of the last event seen.", SEQ)
SINCE = _query("since", "Begin there: ISO 8601, or milliseconds of Unix time; empty: now.", MOMENT)
LAST_EVENT_ID = _header(
    "Last-Event-ID",
    "The `id:` of the last event seen; browsers send it when they reconnect.",
    {"type": "string", "pattern": "^[0-9]{0,14}$"},
)
IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "The same key and body again answer the first job; the same key and another body answer 422.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
RETRY_COUNT = _header(
    "x-stainless-retry-count",
    "Sent by SDKs: 0 at the first try of a post. A later one, with the same API key and body and without an "
    f"`Idempotency-Key`, answers the job that the try before made, within {conf.retry_join_s:g} s. "
    "What is no number is ignored.",
    {"type": "string"},
)
TRACEPARENT = _header(
    "traceparent", "W3C's: the job goes on with the caller's trace. What is none is ignored.", {"type": "string"}
)
FILTERS = [
    _query("status", f"Some of {', '.join(State)}, separated by commas.", _some_of(list(State))),
    _query("model", "Names, separated by commas.", {"type": "string"}),
    _query(
        "priority",
        f"Some of {', '.join(p.word for p in Priority)}, or their numbers, separated by commas.",
        _some_of([name for p in Priority for name in (p.word, str(p.value))]),
    ),
    _query("created_after", "ISO 8601; without an offset it is UTC.", TIME),
    _query("client", "Of those that the caller may see: names, separated by commas.", {"type": "string"}),
    _query("cursor", "`next` of the page before.", {"type": "string", "minLength": 22}),
    _query("limit", "Jobs a page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
]
STREAM = {
    200: {
        "description": "Server-Sent Events: `status`, `delta`, `reset`, `done`; a comment every 15 s.",
        "headers": LIMIT_HEADERS,
        "content": {"text/event-stream": {"schema": ref("Event"), "example": components.STREAM_EXAMPLE}},
    }
}
JOB_ANSWER = {200: _json("The job.", ref("Job"), components.JOB_EXAMPLE, RETRY_AFTER)}

OPERATIONS: dict[str, Json] = {
    operation["operationId"]: operation
    for operation in [
        _operation(
            "submit_job",
            "Submit a job",
            scope=Scope.SUBMIT,
            parameters=[IDEMPOTENCY_KEY, RETRY_COUNT, TRACEPARENT],
            body={
                "required": True,
                "content": {
                    "application/json": {
                        "schema": ref("Submission"),
                        "examples": SUBMISSION_EXAMPLES,
                    }
                },
            },
            answers={
                202: _json(
                    "Taken in.",
                    ref("Job"),
                    components.JOB_EXAMPLE,
                    {
                        **RETRY_AFTER,
                        "Location": {
                            "description": "The job's address.",
                            "schema": {"type": "string", "format": "uri"},
                        },
                    },
                ),
                200: _json(
                    "A replay: the job that an equal request made before, by its `Idempotency-Key`, by an SDK's "
                    "retry, or by `dedupe`.",
                    ref("Job"),
                    components.JOB_EXAMPLE,
                    {"Idempotent-Replayed": {"schema": {"type": "string", "const": "true"}}},
                ),
            },
            errors={
                400: "Something is missing, wrong or unknown; `param` names it. No job was made.",
                404: "Unknown model (`model_not_found`).",
                409: "An equal request is still being taken in (`idempotency_in_progress`).",
                413: "The body is too large (`request_too_large`).",
                415: "The body is not `application/json`.",
                422: "The `Idempotency-Key` came before with another body (`idempotency_key_reused`).",
                429: (
                    "The queue is full (`queue_full`), or the client is at its limit and `when_limited` is `reject` "
                    "(`rate_limit_exceeded`): `Retry-After` says in how many seconds there may be room. Or the budget "
                    "of this month is spent (`insufficient_quota`): `x-should-retry` is `false`."
                ),
            },
        ),
        _operation(
            "list_jobs",
            "List jobs, newest first",
            scope=Scope.READ,
            description=(
                "`metadata.KEY=VALUE`, as often as wanted, lists the jobs whose metadata has these values. "
                "A page may be short, or empty, and still have a `next`: a page looks at 10,000 jobs at most."
            ),
            parameters=FILTERS,
            answers={200: _json("A page.", ref("JobList"))},
            errors=BAD_QUERY,
        ),
        _operation(
            "get_job",
            "Get a job, or wait for its end",
            scope=Scope.READ,
            parameters=[JOB_ID, WAIT],
            answers=JOB_ANSWER,
            errors={**BAD_QUERY, **NO_JOB},
        ),
        _operation(
            "erase_job",
            "Erase a finished job's request, output and events",
            scope=Scope.CANCEL,
            description="The job's row and its ledger of attempts stay.",
            parameters=[JOB_ID],
            answers={204: {"description": "Erased."}},
            errors={**BAD_QUERY, **NO_JOB, 409: "The job is not finished (`not_allowed`)."},
        ),
        _operation(
            "cancel_job",
            "Cancel a job",
            scope=Scope.CANCEL,
            description="Idempotent. A waiting job is cancelled at once; a running one's call is aborted.",
            parameters=[JOB_ID],
            answers=JOB_ANSWER,
            errors={**BAD_QUERY, **NO_JOB},
        ),
        _operation(
            "stream_job_events",
            "Follow a job",
            scope=Scope.READ,
            parameters=[JOB_ID, AFTER, LAST_EVENT_ID],
            answers={**STREAM, 204: {"description": "The job is over, and there is nothing after that event."}},
            errors={**BAD_QUERY, **NO_JOB, **TOO_MANY_VIEWERS},
        ),
        _operation(
            "stream_events",
            "Follow all of the caller's jobs",
            scope=Scope.READ,
            description="Its `id:` is a moment; what was logged since is sent again, and (job, seq) tells it apart.",
            parameters=[SINCE, LAST_EVENT_ID],
            answers=STREAM,
            errors={**BAD_QUERY, **TOO_MANY_VIEWERS},
        ),
        _operation(
            "get_stats",
            "Statistics of the queue",
            scope=Scope.READ,
            description="A client's key sees its own jobs, an operator all.",
            answers={200: _json("The statistics.", ref("Stats"))},
            errors=BAD_QUERY,
        ),
        _operation(
            "list_models",
            "The models that the caller may use",
            scope=Scope.READ,
            answers={200: _json("The models.", ref("ModelList"))},
            errors=BAD_QUERY,
        ),
    ]
}

STREAMS = {"/jobs/{job_id}/events": "stream_job_events", "/events": "stream_events"}
