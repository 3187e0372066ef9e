"""The JSON schema of what is submitted, with examples. What it says, `submissions.py` does: a fuzzer compares them."""

from collections.abc import Callable, Sequence
from typing import Any

from llmjobs.api.json_schema import PRIORITY, TEXT, Json, nullable, object_of
from llmjobs.conf import conf
from llmjobs.states import Endpoint, Priority
from llmjobs.submissions import (
    DEDUPE,
    DELAY_MAX_S,
    MODEL_CHARS_MAX,
    ON_INTERRUPT,
    USER_CHARS_MAX,
    WEBHOOK_URL_CHARS_MAX,
    WHEN_LIMITED,
)


def _optional(schema: Json, description: str, default: Any = None) -> Json:
    """Of a submission: null is as good as nothing."""
    return {**nullable(schema), "description": description, **({} if default is None else {"default": default})}


def _number(least: float, most: float | Callable[[], float]) -> Json:
    return {"type": "number", "minimum": least, "maximum": most}


def _word(words: Sequence[str]) -> Json:
    return {"type": "string", "enum": list(words)}


def _prompt(name: str, schema: Json, *endpoints: Endpoint, title: str) -> Json:
    """One of the ways to say what the model shall answer; the others are left out."""
    others = {other: {"type": "null"} for other in ("messages", "input", "body") if other != name}
    return {
        "title": title,
        "required": [name],
        "properties": {name: schema, **others, "endpoint": nullable(_word(endpoints))},
    }


def _whole_request(name: str, schema: Json, *endpoints: Endpoint) -> Json:
    """`body`, with its own `messages`, `input` or `prompt`; the first that it has says which."""
    properties = {"model": False, "stream": {"type": "boolean"}, name: schema}
    if name != "messages":
        properties["messages"] = False
    return _prompt(
        "body",
        {"type": "object", "required": [name], "properties": properties},
        *endpoints,
        title=f"The provider's whole request, with {name}",
    )


MESSAGES: Json = {
    "type": "array",
    "minItems": 1,
    "maxItems": lambda: conf.messages_max,
    "items": {"type": "object", "required": ["role"], "properties": {"role": TEXT}},
}
INPUT: Json = {
    "anyOf": [{**TEXT, "minLength": 1}, {"type": "array", "minItems": 1, "maxItems": lambda: conf.messages_max}],
}

SUBMISSION = object_of(
    {
        "model": {
            **TEXT,
            "minLength": 1,
            "maxLength": MODEL_CHARS_MAX,
            "description": "A name of `GET /api/models`.",
        },
        "messages": _optional(MESSAGES, "A chat, as `/v1/chat/completions` takes it."),
        "input": _optional(INPUT, "As `/v1/responses` and `/v1/embeddings` take it."),
        "body": _optional({"type": "object"}, "The provider's whole request, instead of messages or input."),
        "endpoint": _optional(_word(list(Endpoint)), "By default as messages or input suggest."),
        "priority": {
            "anyOf": [PRIORITY, {"type": "integer", "enum": list(Priority)}, {"type": "null"}],
            "default": "normal",
        },
        "delay_s": _optional(_number(0, DELAY_MAX_S), "Start no sooner.", 0),
        "expires_in_s": _optional(_number(0.001, DELAY_MAX_S), "Expire if not started by then."),
        "timeout_s": _optional(_number(0.001, lambda: conf.timeout_max_s), "Of one attempt.", lambda: conf.timeout_s),
        "max_attempts": _optional(
            {"type": "integer", "minimum": 1, "maximum": lambda: conf.max_attempts_max},
            "Failures after which it is dead.",
            lambda: conf.max_attempts,
        ),
        "retry_for_s": _optional(
            _number(0, lambda: conf.retry_for_max_s), "Bounds all retries together.", lambda: conf.retry_for_s
        ),
        "max_cost_usd": _optional(_number(0.000001, 1_000_000), "What lost attempts may cost before no more are made."),
        "on_interrupt": _optional(
            _word(ON_INTERRUPT),
            "Of a stream that broke: start over, or end as completed with what came (`finish_reason: interrupted`).",
            ON_INTERRUPT[0],
        ),
        "dedupe": _optional(
            _word(DEDUPE), "`join`: answer the client's own equal job that has not ended, if there is one.", DEDUPE[0]
        ),
        "when_limited": _optional(
            _word(WHEN_LIMITED),
            "Where the client's own limits a minute leave no room now; a delayed job always waits.",
            WHEN_LIMITED[0],
        ),
        "webhook_url": _optional(
            {
                **TEXT,
                "maxLength": WEBHOOK_URL_CHARS_MAX,
                "pattern": r"^https?://[A-Za-z0-9]+([.-][A-Za-z0-9]+)*(:([1-9][0-9]{0,3}|[1-5][0-9]{4}))?"
                r"(/[A-Za-z0-9._~/%+-]*)?(\?[A-Za-z0-9._~=&%+-]*)?$",
            },
            "Told of the job's end, as a Standard Webhook.",
        ),
        "user": _optional(
            {**TEXT, "minLength": 1, "maxLength": USER_CHARS_MAX}, "The end user on whose behalf it is made."
        ),
        "metadata": _optional(
            {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": lambda: conf.metadata_value_chars_max},
                "propertyNames": {"minLength": 1, "maxLength": lambda: conf.metadata_key_chars_max},
                "maxProperties": lambda: conf.metadata_keys_max,
            },
            "Yours, to find jobs by.",
        ),
    },
    required=["model"],
    anyOf=[
        _prompt("messages", MESSAGES, Endpoint.CHAT, title="A chat"),
        _prompt("input", INPUT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS, title="An input"),
        _whole_request("messages", MESSAGES, Endpoint.CHAT),
        _whole_request("input", INPUT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS),
        _whole_request("prompt", {"not": {"type": "null"}}, Endpoint.RESPONSES),
    ],
)

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
