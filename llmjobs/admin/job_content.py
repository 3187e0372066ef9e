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
class Message:
    """`more` is what a message has beside role and text (tool calls, names), as JSON, or ""."""

    role: str
    text: str
    more: str = ""


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
    return Answered(text, note, raw if raw_note else indented(raw), raw_note)


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
        rest = {key: value for key, value in item.items() if key not in ("role", "content") and value is not None}
        yield Message(
            str(item.get("role", item.get("type", "input"))), _text(item.get("content")), _json(rest) if rest else ""
        )


def _text(content: Any) -> str:
    """A content's text; a part that has none (an image, a file) by its kind."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return _json(content)
    return "\n".join(
        str(part["text"]) if isinstance(part, Mapping) and "text" in part
        else f"[{part.get('type', 'part')}]" if isinstance(part, Mapping)
        else str(part)
        for part in content
    )  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _within_budget(messages: Iterator[Message]) -> tuple[list[Message], str]:
    """The first messages, up to TEXT_CHARS_MAX characters together, and a note where something is missing."""
    shown: list[Message] = []
    left = TEXT_CHARS_MAX
    for message in messages:
        if left <= 0:
            return shown, f"Shown are the first {TEXT_CHARS_MAX:,} characters of the messages."
        text, more = message.text[:left], message.more[: max(0, left - len(message.text))]
        is_cut = len(text) + len(more) < len(message.text) + len(message.more)
        shown.append(Message(message.role, text, more))
        left = 0 if is_cut else left - len(text) - len(more) - 1
    return shown, "" if left > 0 else f"Shown are the first {TEXT_CHARS_MAX:,} characters of the messages."
