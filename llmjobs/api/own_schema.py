"""What OpenAPI says of what belongs to a user: who one is, usage, keys, links, what a job was asked."""

from llmjobs.api.json_schema import (
    COUNT,
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
from llmjobs.api.operation_schema import BAD_QUERY, CLIENT, JOB_ID, NO_JOB, OF_SESSIONS, answer, operation, query
from llmjobs.conf import conf
from llmjobs.issuing import GRANTABLE
from llmjobs.models.tenants import Scope
from llmjobs.states import Endpoint
from llmjobs.usage import LIMITS

KEY_SCOPES: Json = {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(GRANTABLE)}}
API_KEY: Json = {
    "object": {"const": "api_key"},
    "id": TEXT,
    "name": TEXT,
    "prefix": {**TEXT, "description": "The key's first characters, by which people know it."},
    "scopes": {"type": "array", "items": {"type": "string", "enum": Scope.values}},
    "created_at": TIME,
    "expires_at": nullable(TIME),
    "revoked_at": nullable(TIME),
    "last_used_at": {**nullable(TIME), "description": "To the minute."},
    "created_by": {
        **nullable(TEXT),
        "description": "The user who made it; null: an operator did, or the user is gone.",
    },
}
SHARE: Json = {
    "object": {"const": "job.share"},
    "id": TEXT,
    "created_at": TIME,
    "expires_at": TIME,
    "revoked_at": nullable(TIME),
    "last_seen_at": {**nullable(TIME), "description": "When somebody last opened it, to the minute."},
}

SCHEMAS: dict[str, Json] = {
    "Caller": object_of(
        {
            "object": {"const": "caller"},
            "user": {**nullable(TEXT), "description": "null: an API key."},
            "is_operator": {"type": "boolean"},
            "scopes": {"type": "array", "items": {"type": "string", "enum": Scope.values}},
            "can_make_keys": {"type": "boolean"},
            "can_share": {"type": "boolean"},
            "clients": {
                "type": "array",
                "items": object_of(
                    {
                        "name": TEXT,
                        "tier": TEXT,
                        "priorities": {
                            "type": "array",
                            "items": PRIORITY,
                            "description": "Those that its tier allows, the most urgent first.",
                        },
                        "default_priority": PRIORITY,
                        "is_paused": {"type": "boolean"},
                    }
                ),
            },
        }
    ),
    "Usage": object_of(
        {
            "object": {"const": "usage"},
            "client": TEXT,
            "month": {"type": "string", "pattern": "^20[0-9]{2}-[0-9]{2}$", "description": "UTC."},
            "budget_usd": nullable(DOLLARS),
            "spent_usd": DOLLARS,
            "expected_usd": {**DOLLARS, "description": "Of jobs that are not over; 0 in another month than this one."},
            "limits": object_of({name: nullable(COUNT) for name in LIMITS}),
            "now": object_of(
                {
                    "queued": {**COUNT, "description": "Delayed jobs too."},
                    "queued_tokens": {**COUNT, "description": "Estimated."},
                    "running": COUNT,
                    "requests_left": {**nullable(COUNT), "description": "Of a minute; null: no limit."},
                    "tokens_left": {**nullable(COUNT), "description": "Of a minute; null: no limit."},
                }
            ),
            "days": {
                "type": "array",
                "items": object_of(
                    {
                        "day": {"type": "string", "format": "date"},
                        "jobs": {**COUNT, "description": "Submitted then."},
                        "attempts": {**COUNT, "description": "That ended then; tokens and cost are theirs."},
                        "input_tokens": COUNT,
                        "output_tokens": COUNT,
                        "cost_usd": DOLLARS,
                    }
                ),
                "description": "From the first of the month to today, without gaps.",
            },
        }
    ),
    "JobRequest": object_of(
        {
            "object": {"const": "job.request"},
            "id": {"type": "string", "format": "uuid"},
            "endpoint": {"type": "string", "enum": list(Endpoint)},
            "model": TEXT,
            "body": {"type": "object", "description": "For the provider, without the model."},
            "priority": PRIORITY,
            "options": object_of(
                {
                    "timeout_s": SECONDS,
                    "max_attempts": COUNT,
                    "retry_for_s": SECONDS,
                    "max_cost_usd": nullable(DOLLARS),
                    "on_interrupt": {"type": "string", "enum": ["restart", "keep"]},
                    "user": nullable(TEXT),
                }
            ),
            "metadata": METADATA,
        }
    ),
    "ApiKey": object_of(API_KEY),
    "NewApiKey": object_of({**API_KEY, "api_key": {**TEXT, "description": "The key. It is not shown again."}}),
    "ApiKeyList": object_of({"object": {"const": "list"}, "data": list_of("ApiKey")}),
    "ApiKeyOrder": object_of(
        {
            "name": {**TEXT, "minLength": 1, "maxLength": 128},
            "scopes": KEY_SCOPES,
            "expires_in_s": nullable({"type": "number", "minimum": 60, "maximum": 3650 * 86_400}),
        },
        required=["name", "scopes"],
        example={"name": "nightly report", "scopes": ["submit", "read"], "expires_in_s": 7_776_000},
    ),
    "Share": object_of(SHARE),
    "NewShare": object_of({**SHARE, "url": {"type": "string", "format": "uri"}}),
    "ShareList": object_of({"object": {"const": "list"}, "data": list_of("Share")}),
    "ShareOrder": object_of(
        {"expires_in_s": nullable({"type": "number", "minimum": 60, "maximum": lambda: conf.share_max_s})},
        required=[],
        example={"expires_in_s": 86_400},
    ),
}


def _body(name: str, *, required: bool) -> Json:
    return {"required": required, "content": {"application/json": {"schema": ref(name)}}}


def _path(name: str) -> Json:
    return {"in": "path", "name": name, "required": True, "schema": TEXT}


MONTH = query("month", "UTC; without it this month.", {"type": "string", "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])$"})
WHICH_CLIENT = {400: f"A value that is not what was expected, or no `{CLIENT['name']}` of several (`client_required`)."}
NO_CLIENT = {404: "No such client of the caller's (`client_not_found`)."}
BAD_BODY = {
    400: "Something is missing, wrong or unknown; `param` names it.",
    413: "The body is too large (`request_too_large`).",
    415: "The body is not `application/json`.",
}
SESSION = "For users who are logged in: a key can't make keys (403, `session_required`)."
SHARING = "Needs the scope `read` too."
TOO_MANY = "There are as many as may be (`not_allowed`)."

OPERATIONS: dict[str, Json] = {
    written["operationId"]: written
    for written in [
        operation(
            "get_caller",
            "Who asks, and for which clients",
            scope=None,
            answers={200: answer("The caller.", ref("Caller"))},
            errors=BAD_QUERY,
        ),
        operation(
            "get_usage",
            "A client's month, against its budget and limits",
            scope=Scope.READ,
            parameters=[CLIENT, MONTH],
            answers={200: answer("The month.", ref("Usage"))},
            errors={**WHICH_CLIENT, **NO_CLIENT},
        ),
        operation(
            "list_keys",
            "List the client's API keys, the valid ones first",
            scope=None,
            security=OF_SESSIONS,
            description=SESSION,
            parameters=[CLIENT],
            answers={200: answer("The keys, 200 at most.", ref("ApiKeyList"))},
            errors={**WHICH_CLIENT, **NO_CLIENT},
        ),
        operation(
            "make_key",
            "Make an API key",
            scope=None,
            security=OF_SESSIONS,
            description=SESSION,
            parameters=[CLIENT],
            body=_body("ApiKeyOrder", required=True),
            answers={201: answer("Made. The key itself is in this answer alone.", ref("NewApiKey"))},
            errors={**BAD_BODY, **NO_CLIENT, 409: TOO_MANY},
        ),
        operation(
            "revoke_key",
            "Revoke an API key",
            scope=None,
            security=OF_SESSIONS,
            description=f"Idempotent. {SESSION}",
            parameters=[CLIENT, _path("key_id")],
            answers={200: answer("The key; it is refused from the next request on.", ref("ApiKey"))},
            errors={
                **WHICH_CLIENT,
                404: "No such key of the client's (`key_not_found`), or no such client (`client_not_found`).",
                409: "It is an operator's (`not_allowed`).",
            },
        ),
        operation(
            "get_job_request",
            "What was submitted, as it can be submitted again",
            scope=Scope.READ,
            parameters=[JOB_ID],
            answers={200: answer("The request.", ref("JobRequest"))},
            errors={**BAD_QUERY, 404: "No such job, or another client's; or it was erased (`request_erased`)."},
        ),
        operation(
            "list_job_shares",
            "List the links that show a job",
            scope=Scope.READ,
            parameters=[JOB_ID],
            answers={200: answer("The links, the newest first, those that are over too.", ref("ShareList"))},
            errors={**BAD_QUERY, **NO_JOB},
        ),
        operation(
            "share_job",
            "Make a link that shows a job to whoever has it",
            scope=Scope.CANCEL,
            description=f"What was said and answered, read-only, until it expires or is revoked. {SHARING}",
            parameters=[JOB_ID],
            body=_body("ShareOrder", required=False),
            answers={201: answer("Made. Its address is in this answer alone.", ref("NewShare"))},
            errors={
                **BAD_BODY,
                **NO_JOB,
                409: f"{TOO_MANY} Or the job was erased, or links are switched off.",
            },
        ),
        operation(
            "revoke_job_share",
            "Revoke a link",
            scope=Scope.CANCEL,
            description=f"Idempotent. {SHARING}",
            parameters=[JOB_ID, _path("share_id")],
            answers={200: answer("The link, which shows nothing any more.", ref("Share"))},
            errors={**BAD_QUERY, 404: "No such job, or no such link to it (`share_not_found`)."},
        ),
    ]
}
