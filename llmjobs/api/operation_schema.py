"""The pieces that the API's operations are put together from: parameters, answers, errors, who may.

schema.py and own_schema.py write the operations down with these.
"""

from collections.abc import Callable, Mapping
from typing import Any

from llmjobs.api.json_schema import Json, ref

Text = str | Callable[[], str]  # as a function it names a setting

SECURITY: list[Json] = [{"apiKey": []}, {"session": []}]
OF_SESSIONS: list[Json] = [{"session": []}]

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


def operation(
    operation_id: str,
    summary: str,
    *,
    scope: str | None,
    answers: Mapping[int, Json],
    errors: Mapping[int, Text] | None = None,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    description: str = "",
    security: list[Json] = SECURITY,
) -> Json:
    """`scope` None: everybody who is let in may ask, or those whom `description` names."""
    written: Json = {
        "operationId": operation_id,
        "summary": summary,
        "description": f"{description}\n\n{f'Needs the scope `{scope}`.' if scope else ''}".strip(),
        "tags": [_tag(operation_id)],
        "parameters": parameters or [],
        "security": security,
        "responses": {
            **{str(status): given for status, given in answers.items()},
            **{str(status): error(text) for status, text in sorted({**ALWAYS, **(errors or {})}.items())},
        },
    }
    if body:
        written["requestBody"] = body
    return written


def _tag(operation_id: str) -> str:
    words = operation_id.split("_")
    if words[0] == "stream":
        return "streams"
    if {"job", "jobs"} & set(words):
        return "jobs"
    return "account" if {"caller", "usage", "key", "keys"} & set(words) else "queue"


def answer(description: str, schema: Json, example: Any = None, headers: Json | None = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {
        "description": description,
        "headers": {**LIMIT_HEADERS, **(headers or {})},
        "content": {"application/json": content},
    }


def error(description: Text) -> Json:
    return {"description": description, "content": {"application/json": {"schema": ref("Error")}}}


def query(name: str, description: Text, schema: Json, **more: Any) -> Json:
    return {"in": "query", "name": name, "description": description, "schema": schema, **more}


def some_of(words: list[str]) -> Json:
    one = f"({'|'.join(words)})"
    return {"type": "string", "pattern": f"^{one}(,{one})*$"}


def header(name: str, description: Text, schema: Json) -> Json:
    return {"in": "header", "name": name, "description": description, "schema": schema}


JOB_ID = {"in": "path", "name": "job_id", "required": True, "schema": {"type": "string", "format": "uuid"}}
TRACEPARENT = header(
    "traceparent", "W3C's: the job goes on with the caller's trace. What is none is ignored.", {"type": "string"}
)
CLIENT = header(
    "LLMJobs-Client",
    "Which of a user's clients is meant, by its name; needed where there are several. Another's is none (404, "
    "`client_not_found`).",
    {"type": "string"},
)
