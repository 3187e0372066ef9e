"""A stream put together again: from its events to the body that the provider would have sent without streaming.

Each assembler takes the parsed events of one call, tells the text that each adds, and knows whether the stream has
come to its own end: a stream that is cut looks like success to the SDKs. Pure.
"""

import json
import math
import re
from typing import Any, NoReturn, Protocol

from llmjobs.states import Endpoint

USAGE_CHARS_MAX, USAGE_NESTS_MAX = 10_000, 50
HUGE_NUMBER = re.compile(r"[eE]\+?\d{3}|\d{300}")
INTERRUPTED = "interrupted"  # why it ended: broke off, and what had come was kept
RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# What reading JSON of another shape than documented raises.
SHAPE_ERRORS = (AttributeError, LookupError, TypeError)


class StreamError(Exception):
    """The provider reported an error inside a stream that had begun with status 200."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Assembler(Protocol):
    is_finished: bool
    piece_count: int  # events that brought output: about as many tokens
    response_id: str | None  # by which a provider may find it again

    @property
    def finish_reason(self) -> str | None:
        """Once all of the text is there, and the text is all of the answer; None until then, and for other answers."""
        ...

    def interrupted(self, text: str) -> dict[str, Any]:
        """The body of a stream that broke off, with what had come. `text`: what add gave."""
        ...

    def add(self, data: bytes) -> str:
        """Take the data of one event; the text that it adds. Raises StreamError, or ValueError for what is no chunk."""
        ...

    def body(self) -> dict[str, Any]:
        """Raises ValueError like `add`."""
        ...


def assembler_for(endpoint: str, choices: Any = None) -> Assembler:
    """`choices`: how many were asked for, as the request says it."""
    return ChatAssembler(choices) if endpoint == Endpoint.CHAT else ResponsesAssembler()


def parse_json(data: bytes) -> Any:
    """Strict JSON, whose numbers a float can hold. Raises ValueError."""
    text = data.decode("utf-8-sig")
    # Looked for, because a hook for each float is slow.
    decoder = _CAREFUL_DECODER if HUGE_NUMBER.search(text) else _DECODER
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("expected JSON of a sane depth") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected JSON, got {constant}")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"expected a number that a float can hold, got {digits[:32]}")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # made once: json.loads would make one for each token
_CAREFUL_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_sent(raw: bytes, body: Any) -> str:
    """The text of a body that parsed; written anew only where it could not be sent on (half a surrogate pair)."""
    text = raw.decode("utf-8-sig")
    if not SURROGATE.search(text):
        return text
    written_anew = dump_json(body)
    try:
        written_anew.encode()
    except UnicodeEncodeError:
        return written_anew
    return text


def storable(usage: Any) -> dict[str, Any] | None:
    """The provider's usage, where it is small, flat and text that jsonb takes; None for anything else."""
    if not isinstance(usage, dict):
        return None
    try:
        text = dump_json(usage)
        text.encode()
    except (ValueError, RecursionError):
        return None
    is_sane = len(text) <= USAGE_CHARS_MAX and text.count("{") + text.count("[") <= USAGE_NESTS_MAX
    return usage if is_sane and "\\u0000" not in text else None


class ChatAssembler:
    """`chat.completion.chunk` events. The end is `[DONE]`; without it the stream was cut."""

    response_id: str | None = None

    def __init__(self, choices: Any = None) -> None:
        self.is_finished = False
        self.piece_count = 0
        self._is_one = choices in (None, 1)  # more may come one after the other
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, data: bytes) -> str:
        if data == b"[DONE]":
            self.is_finished = True
            return ""
        chunk = parse_json(data)
        if not isinstance(chunk, dict):
            raise ValueError("a chunk that is no object")
        if chunk.get("error"):
            raise stream_error(chunk["error"])
        for key, value in chunk.items():
            if key not in ("choices", "object") and (value is not None or key not in self._head):
                self._head[key] = value
        try:
            return "".join([self._add_choice(part) for part in chunk.get("choices") or ()])
        except SHAPE_ERRORS as error:
            raise ValueError(f"a chunk of another shape than documented ({error})") from None

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

    @property
    def finish_reason(self) -> str | None:
        if not self._is_one or len(self._choices) != 1 or 0 not in self._choices:
            return None
        choice = self._choices[0]
        reason, message = choice.get("finish_reason"), choice.get("message")
        is_text = isinstance(message, dict) and not any(
            value for key, value in message.items() if key not in ("role", "content")
        )
        return reason if isinstance(reason, str) and is_text and choice.get("logprobs") is None else None

    def interrupted(self, text: str) -> dict[str, Any]:
        try:
            body = self.body()
        except ValueError:
            message = {"role": "assistant", "content": text, "refusal": None}
            body = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": None}]}
        for choice in body["choices"]:
            choice["finish_reason"] = choice.get("finish_reason") or INTERRUPTED
        return body

    def body(self) -> dict[str, Any]:
        try:
            choices = [self._choices[index] for index in sorted(self._choices)]
            for choice in choices:
                message = choice["message"]
                message.setdefault("role", "assistant")
                message.setdefault("content", None)
                message.setdefault("refusal", None)
                for call in message.get("tool_calls") or ():
                    call.pop("index", None)
        except SHAPE_ERRORS as error:
            raise ValueError(f"chunks of another shape than documented ({error})") from None
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
        self.response_id: str | None = None
        self.cursor: int | None = None  # the number of the latest event
        self._known_to = -1
        self._response: dict[str, Any] = {}

    def continue_after(self) -> int | None:
        """The stream is asked for again, behind the event with this number; what is told twice is dropped."""
        self._known_to = -1 if self.cursor is None else self.cursor
        return self.cursor

    def add(self, data: bytes) -> str:
        if data == b"[DONE]":
            return ""
        event = parse_json(data)
        if not isinstance(event, dict):
            raise ValueError("an event that is no object")
        kind, number = str(event.get("type", "")), event.get("sequence_number")
        if isinstance(number, int):
            if number <= self._known_to:
                return ""
            self.cursor = number
        if isinstance(event.get("response"), dict):
            self._response = event["response"]
            self.response_id = response_id_of(self._response)
        if kind == "error" or ("error" in event and not kind):
            raise stream_error(event.get("error") or event)
        if kind == "response.failed":
            raise stream_error(self._response.get("error") or {})
        if kind in ("response.completed", "response.incomplete"):
            self.is_finished = True
        if kind.endswith(".delta"):
            self.piece_count += 1
        return event["delta"] if kind == "response.output_text.delta" and isinstance(event.get("delta"), str) else ""

    @property
    def finish_reason(self) -> str | None:
        return None  # its last event brings the whole response, and is its end

    def interrupted(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {"type": "message", "role": "assistant", "status": "incomplete", "content": [part]}
        return self._response | {
            "object": "response", "status": "incomplete", "incomplete_details": {"reason": INTERRUPTED},
            "output": [message],
        }  # fmt: skip

    def body(self) -> dict[str, Any]:
        return self._response


def response_id_of(response: dict[str, Any]) -> str | None:
    """Its id, where that can stand in a path."""
    id = response.get("id")
    return id if isinstance(id, str) and RESPONSE_ID.fullmatch(id) else None


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
    try:
        if endpoint == Endpoint.CHAT:
            content = body["choices"][0]["message"]["content"]
            return content if isinstance(content, str) else ""
        if endpoint == Endpoint.RESPONSES:
            parts = (part for item in body["output"] for part in item.get("content") or ())
            return "".join([part["text"] for part in parts if part.get("type") == "output_text"])
    except SHAPE_ERRORS:
        pass  # the body is kept as it is
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
