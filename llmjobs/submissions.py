"""What is asked for, checked: a JSON object (or keywords) becomes a `Submission`, or an error that names the field.

Shared by the HTTP API, bulk and Python. Pure but for the bounds in `conf`. Nothing here asks the database: whether the
model exists and what the client may do is `queue.submit`'s to say.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, RequestTooLarge
from llmjobs.states import Endpoint, Priority
from llmjobs.strict_json import NESTING_MAX

DELAY_MAX_S = 30 * 86_400
MODEL_CHARS_MAX = 128
USER_CHARS_MAX = 256
IDEMPOTENCY_KEY_CHARS_MAX = 255
FIELDS = frozenset(
    {
        "model", "messages", "input", "body", "endpoint", "priority", "delay_s", "expires_in_s", "timeout_s",
        "max_attempts", "retry_for_s", "max_cost_usd", "on_interrupt", "dedupe", "when_limited", "webhook_url", "user",
        "metadata",
    }
)  # fmt: skip
WHEN_LIMITED = ("wait", "reject")
ON_INTERRUPT = ("restart", "keep")
DEDUPE = ("none", "join")
WEBHOOK_URL_CHARS_MAX = 2_048


@dataclass(frozen=True, slots=True)
class Submission:
    """`body` is the provider's request as JSON text, without model and stream; times in seconds."""

    endpoint: str
    model: str
    body: str
    request: Mapping[str, Any]  # `body` before it became text
    priority: int
    delay_s: float
    expires_in_s: float | None
    is_rejected_when_limited: bool  # by its client's own limits a minute; else it waits for them
    timeout_s: float
    max_attempts: int
    retry_for_s: float
    max_cost_usd: Decimal | None
    user: str | None
    metadata: Mapping[str, str]
    prompt_hash: str
    fingerprint: str
    keeps_partial: bool  # on_interrupt: keep
    joins: bool  # dedupe: join
    webhook_url: str | None
    on_settled: str | None = None  # a function's dotted path; for Python alone
    task: str | None = None  # what tasks.py keeps of the task that it was enqueued as; JSON


def parse(data: Any) -> Submission:
    """Raises InvalidRequest (400) with `param`, or RequestTooLarge (413)."""
    if not isinstance(data, Mapping):
        raise InvalidRequest(f"expected a JSON object, got {_kind(data)}", code="invalid_type")
    for name in data:
        if name not in FIELDS:
            raise InvalidRequest(_unknown(name), param=str(name), code="unknown_parameter")
    model = _text(data, "model", MODEL_CHARS_MAX)
    if model is None:
        raise InvalidRequest("expected a string, got none", param="model", code="missing_required_parameter")
    endpoint, request = _request(data, model)
    body = _dump(request, "body" if "body" in data else "messages" if "messages" in data else "input")
    metadata = _metadata(data.get("metadata"))
    expires_in_s = _number(data, "expires_in_s", None, least=0.001, most=DELAY_MAX_S)
    cost = _number(data, "max_cost_usd", None, least=0.000001, most=1_000_000)
    return Submission(
        endpoint=endpoint,
        model=model,
        body=body,
        request=request,
        priority=_priority(data.get("priority")),
        delay_s=_number(data, "delay_s", 0.0, least=0, most=DELAY_MAX_S) or 0.0,
        expires_in_s=expires_in_s,
        is_rejected_when_limited=_choice(data, "when_limited", WHEN_LIMITED) == "reject",
        timeout_s=_number(data, "timeout_s", conf.timeout_s, least=0.001, most=conf.timeout_max_s) or conf.timeout_s,
        max_attempts=_whole(data, "max_attempts", conf.max_attempts, least=1, most=conf.max_attempts_max),
        retry_for_s=_number(data, "retry_for_s", conf.retry_for_s, least=0, most=conf.retry_for_max_s) or 0.0,
        max_cost_usd=None if cost is None else Decimal(str(cost)),
        user=_text(data, "user", USER_CHARS_MAX),
        metadata=metadata,
        prompt_hash="sha256:" + _digest([endpoint, model, request]),
        fingerprint=_digest(data),
        keeps_partial=_choice(data, "on_interrupt", ON_INTERRUPT) == "keep",
        joins=_choice(data, "dedupe", DEDUPE) == "join",
        webhook_url=_webhook_url(data),
    )


def check_idempotency_key(key: Any) -> None:
    """Raises InvalidRequest for what can't be kept."""
    if _text({"idempotency_key": key}, "idempotency_key", IDEMPOTENCY_KEY_CHARS_MAX) is None:
        raise InvalidRequest("expected a string, got none", param="idempotency_key", code="invalid_type")


def _request(data: Mapping[str, Any], model: str) -> tuple[str, dict[str, Any]]:
    given = [name for name in ("messages", "input", "body") if data.get(name) is not None]
    if len(given) != 1:
        came = " and ".join(given) or "none of them"
        raise InvalidRequest(
            f"expected exactly one of messages, input and body, got {came}",
            param=given[1] if given else "messages",
            code="missing_required_parameter" if not given else "conflicting_parameters",
        )
    if given[0] == "body":
        request = data["body"]
        if not isinstance(request, Mapping):
            raise InvalidRequest(f"expected an object, got {_kind(request)}", param="body", code="invalid_type")
        if request.get("model", model) != model:
            raise InvalidRequest(
                f"expected the model {model!r} or none, got {request['model']!r}",
                param="body.model",
                code="conflicting_parameters",
            )
        if "stream" in request and not isinstance(request["stream"], bool):
            raise InvalidRequest(
                f"expected a boolean, got {_kind(request['stream'])}",
                param="body.stream",
                code="invalid_type",
            )
        request, path = {key: value for key, value in request.items() if key != "model"}, "body."
    else:
        request, path = {given[0]: data[given[0]]}, ""
    endpoint = _endpoint(data.get("endpoint"), request)
    _check_prompt(endpoint, request, path)
    return endpoint, request


def _endpoint(value: Any, request: Mapping[str, Any]) -> str:
    if value is None:
        return Endpoint.CHAT if "messages" in request else Endpoint.RESPONSES
    if value not in list(Endpoint):
        raise InvalidRequest(f"expected one of {', '.join(Endpoint)}, got {_shown(value)}", param="endpoint")
    return Endpoint(value)


def _check_prompt(endpoint: str, request: Mapping[str, Any], path: str) -> None:
    name = "messages" if endpoint == Endpoint.CHAT else "input"
    prompt, param = request.get(name), path + name
    if prompt is None and endpoint == Endpoint.RESPONSES and request.get("prompt") is not None:
        return  # a stored prompt of the provider's
    if prompt is None:
        raise InvalidRequest(
            f"expected {name} for {endpoint}, got none", param=param, code="missing_required_parameter"
        )
    if endpoint == Endpoint.CHAT and not isinstance(prompt, list):
        raise InvalidRequest(f"expected an array of messages, got {_kind(prompt)}", param=param, code="invalid_type")
    if not isinstance(prompt, (list, str)):
        raise InvalidRequest(f"expected a string or an array, got {_kind(prompt)}", param=param, code="invalid_type")
    if not prompt:
        raise InvalidRequest("expected at least one element, got none", param=param, code="empty")
    if isinstance(prompt, list) and len(prompt) > conf.messages_max:
        raise InvalidRequest(
            f"expected at most {conf.messages_max} elements, got {len(prompt)}", param=param, code="too_many"
        )
    if endpoint == Endpoint.CHAT:
        for index, message in enumerate(prompt):
            if not isinstance(message, Mapping):
                raise InvalidRequest(
                    f"expected an object, got {_kind(message)}",
                    param=f"{param}[{index}]",
                    code="invalid_type",
                )
            if not isinstance(message.get("role"), str):
                raise InvalidRequest(
                    f"expected a string, got {_kind(message.get('role'))}",
                    param=f"{param}[{index}].role",
                    code="invalid_type",
                )


def _dump(request: Mapping[str, Any], param: str) -> str:
    _check_text(request, param, is_named=param == "body")
    try:
        text = json.dumps(request, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"expected what JSON can say, got: {error}", param=param, code="invalid_json") from None
    if len(text) > conf.body_max_bytes or len(text.encode()) > conf.body_max_bytes:
        raise RequestTooLarge(f"expected at most {conf.body_max_bytes} bytes", param=param, code="request_too_large")
    return text


def _check_text(value: Mapping[Any, Any], param: str, *, is_named: bool = True) -> None:
    """Refuses what Postgres can't store, and names where it stands; `is_named`: its path begins with `param`.

    Without recursion: the depth is the sender's. It is bounded for those who read the request after us.
    """
    todo: list[tuple[str, int, Any]] = [(param if is_named else "", 0, value)]
    while todo:
        path, depth, item = todo.pop()
        if isinstance(item, str):
            _check_string(item, path)
        elif depth > NESTING_MAX:
            raise InvalidRequest(f"expected at most {NESTING_MAX} levels of nesting", param=param, code="too_deep")
        elif isinstance(item, Mapping):
            for key, part in item.items():
                if not isinstance(key, str):
                    raise InvalidRequest(f"expected strings as keys, got {_kind(key)}", param=path, code="invalid_type")
                _check_string(key, path)
                todo.append((f"{path}.{key}"[:200].removeprefix("."), depth + 1, part))
        elif isinstance(item, (list, tuple)):
            todo.extend(
                (f"{path}[{index}]"[:200], depth + 1, part)
                for index, part in enumerate(item)
                if isinstance(part, (str, Mapping, list, tuple))
            )


def _check_string(text: str, param: str) -> None:
    if "\0" in text:
        raise InvalidRequest("expected text without NUL (U+0000)", param=param, code="invalid_text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(
                "expected valid Unicode, got half a surrogate pair", param=param, code="invalid_text"
            ) from None


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"expected an object, got {_kind(value)}", param="metadata", code="invalid_type")
    if len(value) > conf.metadata_keys_max:
        raise InvalidRequest(
            f"expected at most {conf.metadata_keys_max} keys, got {len(value)}",
            param="metadata",
            code="too_many",
        )
    _check_text(value, "metadata")
    for key, text in value.items():
        if not 0 < len(key) <= conf.metadata_key_chars_max:
            raise InvalidRequest(
                f"expected keys of 1 to {conf.metadata_key_chars_max} characters, got {len(key)}",
                param="metadata",
                code="too_long",
            )
        if not isinstance(text, str):
            raise InvalidRequest(f"expected a string, got {_kind(text)}", param=f"metadata.{key}", code="invalid_type")
        if len(text) > conf.metadata_value_chars_max:
            raise InvalidRequest(
                f"expected at most {conf.metadata_value_chars_max} characters, got {len(text)}",
                param=f"metadata.{key}",
                code="too_long",
            )
    return dict(value)


def _priority(value: Any) -> int:
    words = {priority.word: priority for priority in Priority}
    if value is None:
        return Priority.NORMAL
    if isinstance(value, str) and value in words:
        return words[value]
    if isinstance(value, int) and not isinstance(value, bool) and value in list(Priority):
        return Priority(value)
    expected = ", ".join(f"{word} ({number})" for word, number in words.items())
    raise InvalidRequest(f"expected one of {expected}, got {_shown(value)}", param="priority")


def _choice(data: Mapping[str, Any], name: str, words: tuple[str, ...]) -> str:
    """The first word is the default."""
    value = data.get(name)
    if value is None:
        return words[0]
    if not isinstance(value, str) or value not in words:
        expected = " or ".join(json.dumps(word) for word in words)
        raise InvalidRequest(f"expected {expected}, got {_shown(value)}", param=name)
    return value


def _webhook_url(data: Mapping[str, Any]) -> str | None:
    """Whether it may be called is looked at when it is connected to: names resolve to something else by then."""
    text = _text(data, "webhook_url", WEBHOOK_URL_CHARS_MAX)
    if text is None:
        return None
    try:
        url = urlsplit(text)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.split() == [text]
        is_url = is_url and not url.username and not url.password and not url.fragment and text.isprintable()
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidRequest(
            "expected a URL like https://example.org/hook, without a password or a fragment", param="webhook_url"
        )
    return text


def _text(data: Mapping[str, Any], name: str, chars_max: int) -> str | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"expected a string, got {_kind(value)}", param=name, code="invalid_type")
    if not 0 < len(value) <= chars_max:
        raise InvalidRequest(
            f"expected 1 to {chars_max} characters, got {len(value)}", param=name, code="invalid_length"
        )
    _check_string(value, name)
    return value


def _number(data: Mapping[str, Any], name: str, default: float | None, *, least: float, most: float) -> float | None:
    return _bounded(data, name, default, (int, float), "a number", float, least=least, most=most)


def _whole(data: Mapping[str, Any], name: str, default: int, *, least: int, most: int) -> int:
    value = data.get(name)
    if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 3.0 is 3
        data = {name: int(value)}
    return _bounded(data, name, default, (int,), "a whole number", int, least=least, most=most)


def _bounded(
    data: Mapping[str, Any],
    name: str,
    default: Any,
    types: tuple[type[int], ...] | tuple[type[int], type[float]],
    kind: str,
    make: Callable[[Any], Any],
    *,
    least: float,
    most: float,
) -> Any:
    value = data.get(name)
    if value is None:
        return default
    if not isinstance(value, types) or isinstance(value, bool):
        raise InvalidRequest(f"expected {kind}, got {_kind(value)}", param=name, code="invalid_type")
    if not least <= value <= most:
        raise InvalidRequest(f"expected {kind} from {least:g} to {most:g}, got {_shown(value)}", param=name)
    return make(value)


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unknown(name: Any) -> str:
    ours = ", ".join(sorted(FIELDS))
    return f"no such field: {_shown(name)}. Fields of the provider's request belong into body; ours are {ours}"


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return _kind(value)
    return text if len(text) <= 60 else text[:57] + "…"
