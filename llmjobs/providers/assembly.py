"""A stream put together again: from its events to the body that the provider would have sent without streaming.

Each assembler takes the parsed events of one call, tells the text that each adds, and knows whether the stream has
come to its own end: a stream that is cut looks like success to the SDKs. Pure.
"""

import json
from typing import Any, Protocol

from llmjobs.states import Endpoint


class StreamError(Exception):
    """The provider reported an error inside a stream that had begun with status 200."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Assembler(Protocol):
    is_finished: bool
    piece_count: int  # events that brought output: about as many tokens

    def add(self, data: bytes) -> str:
        """Take the data of one event; the text that it adds. Raises StreamError, ValueError for what is no JSON."""
        ...

    def body(self) -> dict[str, Any]: ...


def assembler_for(endpoint: str) -> Assembler:
    return ChatAssembler() if endpoint == Endpoint.CHAT else ResponsesAssembler()


def parse_json(data: bytes | str) -> Any:
    """Strict JSON. Raises ValueError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"expected JSON, got {constant}")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("expected JSON of a sane depth") from None


class ChatAssembler:
    """`chat.completion.chunk` events. The end is `[DONE]`; without it the stream was cut."""

    def __init__(self) -> None:
        self.is_finished = False
        self.piece_count = 0
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, data: bytes) -> str:
        if data == b"[DONE]":
            self.is_finished = True
            return ""
        chunk = parse_json(data)
        if not isinstance(chunk, dict):
            raise ValueError("expected a chunk to be an object")
        if chunk.get("error"):
            raise stream_error(chunk["error"])
        for key, value in chunk.items():
            if key not in ("choices", "object") and (value is not None or key not in self._head):
                self._head[key] = value
        text = ""
        for part in chunk.get("choices") or ():
            text += self._add_choice(part)
        return text

    def _add_choice(self, part: dict[str, Any]) -> str:
        index = part.get("index", 0)
        choice = self._choices.setdefault(
            index, {"index": index, "message": {}, "logprobs": None, "finish_reason": None}
        )
        for key, value in part.items():
            if key == "logprobs" and value is not None:
                choice["logprobs"] = choice["logprobs"] or {}
                merge(choice["logprobs"], value)
            elif key not in ("index", "delta", "logprobs") and (value is not None or key not in choice):
                choice[key] = value
        delta = part.get("delta") or {}
        merge(choice["message"], delta)
        if any(value for key, value in delta.items() if key != "role"):
            self.piece_count += 1
        content = delta.get("content")
        return content if index == 0 and isinstance(content, str) else ""

    def body(self) -> dict[str, Any]:
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            message = choice["message"]
            message.setdefault("role", "assistant")
            message.setdefault("content", None)
            message.setdefault("refusal", None)
            for call in message.get("tool_calls") or ():
                call.pop("index", None)
        head = {"id": None, "object": "chat.completion", "created": None, "model": None}
        return head | {key: value for key, value in self._head.items() if key != "usage"} | {
            "choices": choices,
            "usage": self._head.get("usage"),
        }  # fmt: skip


class ResponsesAssembler:
    """Typed `response.*` events. Those that end a stream carry the whole response."""

    def __init__(self) -> None:
        self.is_finished = False
        self.piece_count = 0
        self._response: dict[str, Any] = {}

    def add(self, data: bytes) -> str:
        if data == b"[DONE]":
            return ""
        event = parse_json(data)
        if not isinstance(event, dict):
            raise ValueError("expected an event to be an object")
        kind = str(event.get("type", ""))
        if isinstance(event.get("response"), dict):
            self._response = event["response"]
        if kind == "error" or ("error" in event and not kind):
            raise stream_error(event.get("error") or event)
        if kind == "response.failed":
            raise stream_error(self._response.get("error") or {})
        if kind in ("response.completed", "response.incomplete"):
            self.is_finished = True
        if kind.endswith(".delta"):
            self.piece_count += 1
        return event["delta"] if kind == "response.output_text.delta" and isinstance(event.get("delta"), str) else ""

    def body(self) -> dict[str, Any]:
        return self._response


def stream_error(error: Any) -> StreamError:
    if not isinstance(error, dict):
        return StreamError(None, str(error))
    code = error.get("code") or error.get("type")
    return StreamError(None if code is None else str(code), str(error.get("message") or "the provider gave no message"))


def merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to what came before: text is appended, lists with an index are merged by it, others are extended."""
    for key, value in delta.items():
        before = into.get(key)
        if value is None:
            into.setdefault(key, None)
        elif isinstance(value, str) and isinstance(before, str) and key not in ("role", "type", "id"):
            into[key] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            merge(before, value)
        elif isinstance(value, list):
            into[key] = before if isinstance(before, list) else []
            _merge_list(into[key], value)
        else:
            into[key] = value


def _merge_list(into: list[Any], parts: list[Any]) -> None:
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("index"), int):
            same = next((item for item in into if item.get("index") == part["index"]), None)
            if same is not None:
                merge(same, {key: value for key, value in part.items() if key != "index"})
                continue
            into.append({})
            merge(into[-1], part)
        else:
            into.append(part)


def text_of(endpoint: str, body: dict[str, Any]) -> str:
    """The first choice's text of a whole body; empty where there is none."""
    if endpoint == Endpoint.CHAT:
        choices = body.get("choices") or [{}]
        content = (choices[0].get("message") or {}).get("content")
        return content if isinstance(content, str) else ""
    if endpoint == Endpoint.RESPONSES:
        parts = (part for item in body.get("output") or () for part in item.get("content") or ())
        return "".join(part.get("text") or "" for part in parts if part.get("type") == "output_text")
    return ""


def tokens_of(usage: Any) -> tuple[int, int] | None:
    """(input, output) tokens of a provider's usage, in any endpoint's words; None where it tells nothing sane."""
    if not isinstance(usage, dict):
        return None
    asked: Any = usage.get("prompt_tokens", usage.get("input_tokens"))
    answered: Any = usage.get("completion_tokens", usage.get("output_tokens", 0))
    return (asked, answered) if _is_count(asked) and _is_count(answered) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
