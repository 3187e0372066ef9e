"""The words of a request: who says what, of each endpoint, without what programs tell each other.

Owns which parts of a body are words that people read: texts of messages, of `input`, and of `instructions`. Pure. Does
not own who may read them. Invariant: what is no text (a picture, a file, a call of a tool) is named by its kind alone,
so that no address or id of it is told.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SAID = frozenset({"user", "assistant", "input"})  # not by who wrote the program


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    text: str


def words(body: str) -> Iterator[Message]:
    """Of a body as it is kept, JSON text, in its order; nothing of one that is no object, or was erased."""
    try:
        request = json.loads(body or "null")
    except (ValueError, RecursionError):
        return
    if not isinstance(request, Mapping):
        return
    if isinstance(request.get("instructions"), str):
        yield Message("instructions", request["instructions"])
    items = request.get("messages") or request.get("input") or []
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, str):
            yield Message("input", item)
        elif isinstance(item, Mapping):
            yield Message(str(item.get("role", item.get("type", "input"))), _text(item.get("content")))


def messages(body: str, *, chars: int) -> tuple[list[Message], str]:
    """What people said, `chars` characters at most, and a note where something is left out.

    Without instructions, which are the program's, and without what tools were asked and answered.
    """
    said: list[Message] = []
    note, left = "", chars
    for message in words(body):
        if message.role not in SAID:
            note = note or "Instructions to the model and the work of tools are not shown."
        elif left <= 0:
            return said, f"Shown are the first {chars:,} characters of what was asked."
        elif message.text:
            said.append(Message(message.role, message.text[:left]))
            left -= len(message.text)
    return said, note if left >= 0 else f"Shown are the first {chars:,} characters of what was asked."


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(_part(part) for part in content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return ""
    text = part.get("text")
    return text if isinstance(text, str) else f"[{str(part.get('type', 'part'))[:32]}]"
