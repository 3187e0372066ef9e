"""What a test has told the simulator to say, instead of words of its own.

Owns a line's shape, and which line and which of its texts a call gets. Does not own how that is written down. A line is

    {"when": "France", "texts": ["Paris.", "Paris again."]}    for prompts that have these words; "": for all
    {"when": "", "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}

Of several that fit, the last one counts. Its texts are said one after the other, and the last one for good.
Invariant: who asks again for the same job, by X-Client-Request-Id, is told the same again: a retry uses up no text.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmjobs.providers.simulator.speech import Said, cut
from llmjobs.providers.simulator.words import pieces_of

LINES_MAX = 1_000
JOBS_MAX = 100_000

Line = Mapping[str, Any]
SHAPE = 'lines such as {"when": "", "texts": ["Hello."]} or {"when": "", "tool_calls": [{"name": …, "arguments": {…}}]}'


def is_lines(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= LINES_MAX and all(_is_line(line) for line in value)


def _is_line(line: Any) -> bool:
    if not isinstance(line, dict) or not isinstance(line.get("when"), str) or len(line) != 2:
        return False
    texts, calls = line.get("texts"), line.get("tool_calls")
    if calls is None:
        return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) for text in texts)
    return isinstance(calls, list) and bool(calls) and all(_is_tool_call(call) for call in calls)


def _is_tool_call(call: Any) -> bool:
    is_named = isinstance(call, dict) and call.keys() == {"name", "arguments"} and isinstance(call["name"], str)
    return is_named and isinstance(call["arguments"], dict)


class Rehearsed:
    """Who was told what, of the lines that are in force."""

    def __init__(self) -> None:
        self._told: Counter[int] = Counter()  # by the line's place: how many of its texts
        self._of_job: dict[tuple[int, str], int] = {}  # which of them

    def said(self, lines: Sequence[Line], prompt: str, job: str | None, *, max_tokens: int | None) -> Said | None:
        """None: nothing was rehearsed for this prompt."""
        for place in range(len(lines) - 1, -1, -1):
            if lines[place]["when"] in prompt:
                return cut(self._of_line(place, lines[place], job), max_tokens)
        return None

    def _of_line(self, place: int, line: Line, job: str | None) -> Said:
        if calls := line.get("tool_calls"):
            pieces = [pieces_of(json.dumps(call["arguments"], ensure_ascii=False)) for call in calls]
            tools = tuple((call["name"], len(part)) for call, part in zip(calls, pieces, strict=True))
            return Said(tuple(piece for part in pieces for piece in part), tools=tools)
        number = self._of_job.get((place, job)) if job is not None else None
        if number is None:
            number = min(self._told[place], len(line["texts"]) - 1)
            self._told[place] += 1
            if job is not None:
                if len(self._of_job) >= JOBS_MAX:
                    del self._of_job[next(iter(self._of_job))]
                self._of_job[place, job] = number
        return Said(pieces_of(line["texts"][number]))
