"""An answer as a value: status, headers, body in pieces, pace, and the way it ends. A fault turns one answer
into another.

Owns what goes over the wire, not the wire (`wire.py` plays it) and not the words (`chat.py` and its
siblings).
Invariant: a script has one event for each step of `tokens_per_event` output tokens, so what was sent of it
says what was paid.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from llmjobs.providers.simulator.faults import ApiError, Fault

if TYPE_CHECKING:
    from llmjobs.providers.simulator.generations import Generation

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
SLOW_FIRST_TOKEN_S = 30.0

Ending = Literal[
    "complete",  # the body's end, and the connection stays
    "hang_up",  # FIN after what was sent
    "reset",  # RST after what was sent
    "stall",  # nothing more, until `hold_s` or until the client leaves
]

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
_HTML = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
_MALFORMED_EVENT = 'data: {"id": "chatcmpl-broken", "choices": [{"index": 0, "delta": {"cont\n\n'


@dataclass(slots=True)
class Script:
    """A streamed body. The errors of an endpoint's streams have their own shape and number."""

    opening: str  # before the first token
    events: list[str]  # one a token, or one for a token of each choice
    closing: str  # after the last
    error_at: Callable[[int], str]  # the event that tells of an error, if it comes after so many others
    tokens_per_event: int = 1
    is_stamped: bool = False  # each token becomes the time at which it is sent


@dataclass(slots=True)
class Answer:
    status: int  # 0: no head is sent
    content_type: str = JSON
    lines: str = ""  # further header lines, each with its CRLF
    body: bytes = b""  # of an answer that is not streamed
    body_tokens: int = 0  # output tokens in what is sent of it
    sent_bytes: int | None = None  # how much of it is sent; None: all
    script: Script | None = None  # of one that is
    outcome: str = "completed"
    wait_s: float = 0.0  # before the first piece of the body
    token_s: float = 0.0  # from one event to the next
    ending: Ending = "complete"
    hold_s: float | None = None  # of a stall; None: until the client leaves
    generation: "Generation | None" = None  # in the background, which this is a view of

    def head(self) -> bytes:
        if self.status == 0:
            return b""
        framing = "transfer-encoding: chunked" if self.script else f"content-length: {len(self.body)}"
        start = f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\ncontent-type: {self.content_type}\r\n"
        return f"{start}{framing}\r\n{self.lines}\r\n".encode("latin-1")


def json_answer(status: int, value: object, *, lines: str = "", outcome: str = "completed") -> Answer:
    return Answer(status, lines=lines, body=json_text(value).encode("utf-8", "replace"), outcome=outcome)


def json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def error_answer(error: ApiError, *, lines: str, outcome: str) -> Answer:
    lines += "".join([f"{name}: {value}\r\n" for name, value in error.headers.items()])
    return json_answer(error.status, {"error": error_body(error)}, lines=lines, outcome=outcome)


def error_body(error: ApiError) -> dict[str, str | int | None]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def spoiled(answer: Answer, fault: Fault) -> Answer:
    """`answer` as a fault of WIRE_FAULTS leaves it."""
    name = fault.name
    match name:
        case "slow_first_token":
            return replace(answer, wait_s=SLOW_FIRST_TOKEN_S if fault.value is None else fault.value)
        case "refuse":
            return Answer(0, outcome=name, ending="hang_up")
        case "reset":
            return Answer(0, outcome=name, ending="reset", wait_s=answer.wait_s)
        case "html":
            return Answer(502, "text/html", answer.lines, _HTML.encode(), outcome=name)
        case "empty":
            script = replace(answer.script, opening="", events=[], closing="") if answer.script else None
            return replace(answer, script=script, body=b"", body_tokens=0, outcome=name)
        case "stall":
            script = replace(answer.script, opening="", events=[]) if answer.script else None
            stalled = replace(answer, script=script, sent_bytes=0, body_tokens=0, outcome=name, wait_s=0.0)
            return replace(stalled, ending="stall", hold_s=fault.value)
    return _spoiled_stream(answer, answer.script, fault) if answer.script else _spoiled_body(answer, fault)


def _spoiled_stream(answer: Answer, script: Script, fault: Fault) -> Answer:
    """A stream that ends otherwise than it should, after some of its tokens."""
    script = replace(script, events=script.events[: _sent_before(fault, len(script.events), script.tokens_per_event)])
    answer = replace(answer, script=script, outcome=fault.name)
    match fault.name:
        case "truncate":
            script.closing = ""
        case "stream_error":
            script.closing = script.error_at((script.opening + "".join(script.events)).count("data: {"))
        case "malformed":
            script.closing = _MALFORMED_EVENT + script.closing
        case "reset_midstream":
            answer.ending = "reset"
        case "stall_midstream":
            answer.ending, answer.hold_s = "stall", fault.value
    return answer


def _spoiled_body(answer: Answer, fault: Fault) -> Answer:
    """The same for an answer in one piece: part of its body, or a body that is not JSON."""
    tokens = _sent_before(fault, answer.body_tokens, 1)
    sent_bytes = int(len(answer.body) * (tokens / answer.body_tokens if answer.body_tokens else 0.5))
    answer = replace(answer, sent_bytes=min(sent_bytes, len(answer.body) - 1), body_tokens=tokens, outcome=fault.name)
    match fault.name:
        case "malformed":
            return replace(answer, body=answer.body[: answer.sent_bytes], sent_bytes=None)
        case "truncate":
            answer.ending = "hang_up"
        case "reset_midstream":
            answer.ending = "reset"
        case "stall_midstream":
            answer.ending, answer.hold_s = "stall", fault.value
    return answer


def _sent_before(fault: Fault, steps: int, tokens_per_step: int) -> int:
    """How many steps are sent before the fault: as many tokens as its value says, else half."""
    if fault.value is None or fault.name == "stall_midstream":
        return steps // 2
    return min(steps, int(fault.value) // tokens_per_step)
