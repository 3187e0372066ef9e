"""What OpenAPI (3.1) says of the API: `/api/schema`, and `manage.py spectacular` where the site names
`Generator`.

Owns the operations (own_schema.py has those of what belongs to a user), written out because validation is
`submissions.py`'s and rendering `representation.py`'s, so that no serializer could be read for them. components.py has
the schemas that they refer to. Invariant, held by a test of each route: what the API answers is what is written here.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from typing import Any, TypeVar

from django.conf import settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from llmjobs.api import bulk_schema, components, own_schema
from llmjobs.api.json_schema import MOMENT, SECONDS, SEQ, TIME, plain, ref
from llmjobs.api.operation_schema import (
    BAD_QUERY,
    CLIENT,
    JOB_ID,
    LIMIT_HEADERS,
    NO_JOB,
    RETRY_AFTER,
    SECURITY,
    TOO_MANY_VIEWERS,
    TRACEPARENT,
    answer,
    header,
    operation,
    query,
    some_of,
)
from llmjobs.api.submission_schema import SUBMISSION_EXAMPLES
from llmjobs.conf import conf
from llmjobs.models.tenants import Scope
from llmjobs.states import Priority, State

Json = dict[str, Any]
Handler = TypeVar("Handler", bound=Callable[..., Any])


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
            "schemas": {
                **schema["components"].get("schemas", {}),
                **components.SCHEMAS,
                **own_schema.SCHEMAS,
                **bulk_schema.SCHEMAS,
            },
            "securitySchemes": self.security_schemes,
        }
        schema["security"] = SECURITY
        return plain(schema)

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


WAIT = query(
    "wait", lambda: f"Seconds to wait for the job's end; past {conf.wait_max_s:g} they count as these.", SECONDS
)
AFTER = query("after", "The number of the last event seen.", SEQ)
SINCE = query("since", "Begin there: ISO 8601, or milliseconds of Unix time; empty: now.", MOMENT)
LAST_EVENT_ID = header(
    "Last-Event-ID",
    "The `id:` of the last event seen; browsers send it when they reconnect.",
    {"type": "string", "pattern": "^[0-9]{0,14}$"},
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "The same key and body again answer the first job; the same key and another body answer 422.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
RETRY_COUNT = header(
    "x-stainless-retry-count",
    lambda: (
        "Sent by SDKs: 0 at the first try of a post. A later one, with the same API key and body and without an "
        f"`Idempotency-Key`, answers the job that the try before made, within {conf.retry_join_s:g} s. "
        "What is no number is ignored."
    ),
    {"type": "string"},
)
FILTERS = [
    query("status", f"Some of {', '.join(State)}, separated by commas.", some_of(list(State))),
    query("model", "Names, separated by commas.", {"type": "string"}),
    query(
        "priority",
        f"Some of {', '.join(p.word for p in Priority)}, or their numbers, separated by commas.",
        some_of([name for p in Priority for name in (p.word, str(p.value))]),
    ),
    query("created_after", "ISO 8601; without an offset it is UTC.", TIME),
    query("client", "Of those that the caller may see: names, separated by commas.", {"type": "string"}),
    query(
        "search",
        "Words of a prompt, an answer or a value of the metadata, in any case, or a job's id. A page looks at some "
        "thousands of jobs; `searched_to` says how far it came.",
        {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "[^ ]"},
    ),
    query("cursor", "`next` of the page before.", {"type": "string", "minLength": 22}),
    query("limit", "Jobs a page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
]
STREAM = {
    200: {
        "description": "Server-Sent Events: `status`, `delta`, `reset`, `done`; a comment every 15 s.",
        "headers": LIMIT_HEADERS,
        "content": {"text/event-stream": {"schema": ref("Event"), "example": components.STREAM_EXAMPLE}},
    }
}
JOB_ANSWER = {200: answer("The job.", ref("Job"), components.JOB_EXAMPLE, RETRY_AFTER)}

OPERATIONS: dict[str, Json] = {
    written["operationId"]: written
    for written in [
        operation(
            "submit_job",
            "Submit a job",
            scope=Scope.SUBMIT,
            parameters=[CLIENT, IDEMPOTENCY_KEY, RETRY_COUNT, TRACEPARENT],
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
                202: answer(
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
                200: answer(
                    "A replay: the job that an equal request made before, by its `Idempotency-Key`, by an SDK's "
                    "retry, or by `dedupe`.",
                    ref("Job"),
                    components.JOB_EXAMPLE,
                    {"Idempotent-Replayed": {"schema": {"type": "string", "const": "true"}}},
                ),
            },
            errors={
                400: "Something is missing, wrong or unknown; `param` names it. No job was made.",
                404: "Unknown model (`model_not_found`), or client (`client_not_found`).",
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
        operation(
            "list_jobs",
            "List jobs, newest first",
            scope=Scope.READ,
            description=(
                "`metadata.KEY=VALUE`, as often as wanted, lists the jobs whose metadata has these values. "
                "A page may be short, or empty, and still have a `next`: a page looks at 10,000 jobs at most."
            ),
            parameters=FILTERS,
            answers={200: answer("A page.", ref("JobList"))},
            errors=BAD_QUERY,
        ),
        operation(
            "get_job",
            "Get a job, or wait for its end",
            scope=Scope.READ,
            parameters=[JOB_ID, WAIT],
            answers=JOB_ANSWER,
            errors={**BAD_QUERY, **NO_JOB},
        ),
        operation(
            "erase_job",
            "Erase a finished job's request, output and events",
            scope=Scope.CANCEL,
            description="The job's row and its ledger of attempts stay.",
            parameters=[JOB_ID],
            answers={204: {"description": "Erased."}},
            errors={**BAD_QUERY, **NO_JOB, 409: "The job is not finished (`not_allowed`)."},
        ),
        operation(
            "cancel_job",
            "Cancel a job",
            scope=Scope.CANCEL,
            description="Idempotent. A waiting job is cancelled at once; a running one's call is aborted.",
            parameters=[JOB_ID],
            answers=JOB_ANSWER,
            errors={**BAD_QUERY, **NO_JOB},
        ),
        operation(
            "stream_job_events",
            "Follow a job",
            scope=Scope.READ,
            parameters=[JOB_ID, AFTER, LAST_EVENT_ID],
            answers={**STREAM, 204: {"description": "The job is over, and there is nothing after that event."}},
            errors={**BAD_QUERY, **NO_JOB, **TOO_MANY_VIEWERS},
        ),
        operation(
            "stream_events",
            "Follow all of the caller's jobs",
            scope=Scope.READ,
            description="Its `id:` is a moment; what was logged since is sent again, and (job, seq) tells it apart.",
            parameters=[SINCE, LAST_EVENT_ID],
            answers=STREAM,
            errors={**BAD_QUERY, **TOO_MANY_VIEWERS},
        ),
        operation(
            "get_stats",
            "Statistics of the queue",
            scope=Scope.READ,
            description="A client's key sees its own jobs, an operator all.",
            answers={200: answer("The statistics.", ref("Stats"))},
            errors=BAD_QUERY,
        ),
        operation(
            "list_models",
            "The models that the caller may use",
            scope=Scope.READ,
            answers={200: answer("The models.", ref("ModelList"))},
            errors=BAD_QUERY,
        ),
    ]
}

OPERATIONS |= own_schema.OPERATIONS | bulk_schema.OPERATIONS
STREAMS = {"/jobs/{job_id}/events": "stream_job_events", "/events": "stream_events"}
