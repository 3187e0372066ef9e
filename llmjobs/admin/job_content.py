"""What was asked and what came back, as texts to read. Only for who holds `view_job_content`: nobody else's page
calls this.

Every text is cut at `cells.TEXT_CHARS_MAX` characters, all messages of a request together too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models.functions import Left

from llmjobs.admin.cells import TEXT_CHARS_MAX, indented, shortened
from llmjobs.models import Job, JobRequest, JobResult
from llmjobs.representation import streamed_texts
from llmjobs.states import State


@dataclass(frozen=True, slots=True)
class Call:
    """Of a tool, as a model asked for it."""

    name: str
    id: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """`more` is what a message has beside role, text and calls (names, ids), as JSON, or ""."""

    role: str
    text: str
    more: str = ""
    calls: tuple[Call, ...] = ()

    def __len__(self) -> int:
        return len(self.text) + len(self.more) + sum(len(call.arguments) for call in self.calls)


@dataclass(frozen=True, slots=True)
class Asked:
    messages: list[Message]
    note: str
    json: str
    json_note: str


@dataclass(frozen=True, slots=True)
class Answered:
    text: str
    text_note: str
    json: str
    json_note: str
    calls: tuple[Call, ...] = ()


def asked(job: Job) -> Asked | None:
    """None where the request has been erased.

    Reads the whole body, which submit bounded: cut JSON could not be told apart.
    """
    body = JobRequest.objects.filter(job=job).values_list("body", flat=True).first()
    if not body:
        return None
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = {}
    messages, note = _within_budget(_messages(request))
    text, json_note = shortened(indented(body))
    return Asked(messages, note, text, json_note)


def answered(job: Job) -> Answered:
    """The result's texts, cut in the database; of a running job the text so far."""
    if job.state == State.RUNNING:
        text, note = shortened(streamed_texts([job.pk]).get(job.pk))
        return Answered(text, note, "", "")
    cut = {name: Left(name, TEXT_CHARS_MAX + 1) for name in ("output", "output_text")}
    row = JobResult.objects.filter(job=job).values_list(*cut.values()).first()
    output, output_text = row or (None, "")
    text, note = shortened(output_text)
    raw, raw_note = shortened(output)
    if raw_note:
        return Answered(text, note, raw, raw_note)
    return Answered(text, note, indented(raw), "", tuple(_answered_calls(raw)))


def _answered_calls(raw: str) -> Iterator[Call]:
    """Of a whole output, by either endpoint."""
    try:
        output = json.loads(raw or "null")
    except (ValueError, RecursionError):
        return
    if not isinstance(output, Mapping):
        return
    for choice in _mappings(output.get("choices")):
        message = choice.get("message")
        yield from _calls(message.get("tool_calls") if isinstance(message, Mapping) else None)
    yield from (_call(item, item) for item in _mappings(output.get("output")) if item.get("type") == "function_call")


def _messages(request: Any) -> Iterator[Message]:
    """Of all three endpoints: `messages`, or `instructions` and `input`."""
    if not isinstance(request, Mapping):
        return
    if request.get("instructions"):
        yield Message("instructions", _text(request["instructions"]))
    items = request.get("messages") or request.get("input") or []
    for item in items if isinstance(items, list) else [items]:
        if not isinstance(item, Mapping):
            yield Message("input", _text(item))
            continue
        yield _message(item)


def _message(item: Mapping[str, Any]) -> Message:
    role = str(item.get("role", item.get("type", "input")))
    if role == "function_call":
        return Message(role, "", calls=(_call(item, item),))
    if role == "function_call_output":
        return Message(f"{role} {item.get('call_id', '')}", _text(item.get("output")))
    calls = tuple(_calls(item.get("tool_calls")))
    told = {"role", "content"} | ({"tool_calls"} if calls else set())
    rest = {key: value for key, value in item.items() if key not in told and value is not None}
    return Message(role, _text(item.get("content")), _json(rest) if rest else "", calls)


def _calls(value: Any) -> Iterator[Call]:
    """None, where one is not as the API has it: it is shown as JSON then."""
    found = [(item, item.get("function")) for item in _mappings(value)]
    if all(isinstance(function, Mapping) and function.get("name") for _, function in found):
        yield from (_call(item, function) for item, function in found)


def _call(item: Mapping[str, Any], function: Any) -> Call:
    arguments = function.get("arguments", "")
    return Call(
        str(function.get("name", "")),
        str(item.get("call_id", item.get("id", ""))),
        indented(arguments) if isinstance(arguments, str) else _json(arguments),
    )


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _text(content: Any) -> str:
    """A content's text; a part that has none (an image, a file) as a label in brackets."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return _json(content)
    return "\n".join(
        str(part["text"]) if isinstance(part, Mapping) and "text" in part
        else f"[{_label(part)}]" if isinstance(part, Mapping)
        else str(part)
        for part in content
    )  # fmt: skip


def _label(part: Mapping[str, Any]) -> str:
    """ "image_url: https://…", "input_image: inline image/png, 34,000 characters", "file: report.pdf"."""
    kind = str(part.get("type", "part"))
    inner = part.get(kind, part.get("image_url"))
    found = inner if isinstance(inner, Mapping) else part
    name = found.get("url") or found.get("filename") or found.get("file_id") or found.get("refusal")
    name = inner if isinstance(inner, str) and inner else name
    if not isinstance(name, str) or not name:
        return kind
    if name.startswith("data:"):
        return f"{kind}: inline {name[5:40].partition(';')[0]}, {len(name):,} characters"
    return f"{kind}: {name}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _within_budget(messages: Iterator[Message]) -> tuple[list[Message], str]:
    """The first messages, up to TEXT_CHARS_MAX characters together, and a note where something is missing."""
    shown: list[Message] = []
    left = TEXT_CHARS_MAX
    for message in messages:
        if left <= 0:
            return shown, f"Shown are the first {TEXT_CHARS_MAX:,} characters of the messages."
        fits = len(message) <= left
        text, more = message.text[:left], message.more[: max(0, left - len(message.text))]
        shown.append(message if fits else Message(message.role, text, more))
        left = left - len(message) - 1 if fits else 0
    return shown, "" if left > 0 else f"Shown are the first {TEXT_CHARS_MAX:,} characters of the messages."
