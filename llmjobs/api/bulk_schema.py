"""What OpenAPI says of `POST /api/jobs/bulk`: lines of JSON both ways."""

from llmjobs.api.components import JOB_EXAMPLE
from llmjobs.api.json_schema import COUNT, TEXT, Json, nullable, object_of, ref
from llmjobs.api.operation_schema import CLIENT, LIMIT_HEADERS, TRACEPARENT, operation
from llmjobs.conf import conf
from llmjobs.models.tenants import Scope
from llmjobs.states import State

TYPES = ("application/jsonl", "application/x-ndjson", "application/json-lines")  # the first is what is answered

LINE: Json = {"type": "integer", "minimum": 1, "description": "Its number in the body; blank lines count."}
SCHEMAS: dict[str, Json] = {
    "BulkLine": {
        "description": "What became of a line.",
        "anyOf": [
            object_of(
                {
                    "line": LINE,
                    "id": {"type": "string", "format": "uuid"},
                    "object": {"const": "job"},
                    "status": {"type": "string", "enum": list(State)},
                    "idempotent_replayed": {"const": True, "description": "An equal line or request made it before."},
                },
                required=["line", "id", "object", "status"],
            ),
            object_of(
                {
                    "line": LINE,
                    "error": object_of({"code": TEXT, "message": TEXT, "type": TEXT, "param": nullable(TEXT)}),
                    "http_status": {"type": "integer", "description": "What `POST /api/jobs` answers it with."},
                    "retry_after_s": {**COUNT, "description": "Seconds after which there may be room."},
                },
                required=["line", "error", "http_status"],
            ),
        ],
    },
}
EXAMPLE = (
    '{"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "Say hello."}], "idempotency_key": "hello-1"}\n'
    '{"model": "gpt-4.1-mini", "messages": []}\n'
)
ANSWER_EXAMPLE = (
    f'{{"line":1,"id":"{JOB_EXAMPLE["id"]}","object":"job","status":"queued"}}\n'
    '{"line":2,"error":{"code":"empty","message":"expected at least one element, got none",'
    '"type":"invalid_request_error","param":"messages"},"http_status":400}\n'
)

OPERATIONS: dict[str, Json] = {
    "submit_jobs": operation(
        "submit_jobs",
        "Submit many jobs",
        scope=Scope.SUBMIT,
        description=(
            "JSON Lines: a job a line, with the fields of `POST /api/jobs` and, if wanted, an `idempotency_key` of its "
            "own. The answer has a line (`BulkLine`) for each, in order, as they are taken: the job, or the error of "
            "that line, which refuses no other; a blank line has none. Where the queue is full, that line and all "
            "after it are refused, so that these can be sent again. With keys, who lost the answer sends the same "
            "again, and no job is made twice."
        ),
        parameters=[CLIENT, TRACEPARENT],
        body={
            "required": True,
            "description": f"Lines of JSON, such as\n\n```\n{EXAMPLE}```",
            "content": {kind: {"schema": {"type": "string"}} for kind in TYPES},
        },
        answers={
            200: {
                "description": "An answer a line, each a `BulkLine`.",
                "headers": LIMIT_HEADERS,
                "content": {kind: {"schema": ref("BulkLine"), "example": ANSWER_EXAMPLE} for kind in TYPES},
            }
        },
        errors={
            400: lambda: (
                f"More lines than {conf.bulk_lines_max:,} (`too_many_lines`). As with all errors here, no job was made."
            ),
            404: "The client that the header names is none of the caller's (`client_not_found`).",
            413: "The body is too large (`request_too_large`).",
            415: "The body is not of one of these types.",
        },
    )
}
