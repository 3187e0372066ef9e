"""`/v1/responses` written down: the response in one piece, or as events with their types and sequence
numbers.

Owns the shapes, which are OpenAI's. Invariant: the last event of a stream carries what the call without a
stream returns.
"""

import itertools
from dataclasses import replace
from typing import Any

from llmjobs.providers.simulator.answers import Script, json_text
from llmjobs.providers.simulator.calls import Call
from llmjobs.providers.simulator.chat import TOP_LOGPROBS_MAX, token_logprob, top_logprobs
from llmjobs.providers.simulator.faults import SERVER_ERROR
from llmjobs.providers.simulator.fields import integer
from llmjobs.providers.simulator.speech import Said
from llmjobs.providers.simulator.words import escaped

_ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def whole(call: Call, number: str, created: int) -> str:
    return json_text(finished(call, number, created))


def finished(call: Call, number: str, created: int) -> dict[str, Any]:
    return _response(call, number, created, _status(call), _items(call, number), _usage(call))


def unfinished(call: Call, number: str, created: int, status: str, output_tokens: int | None) -> dict[str, Any]:
    """One in the background that has not come to its own end; `output_tokens`: what it used, where that is told."""
    usage = None if output_tokens is None else _usage(call, output_tokens)
    return _response(call, number, created, status, [], usage)


def script_after(script: Script, after: int) -> Script:
    """What is left of it for who has seen the events up to this number; each is as late as it was."""
    numbers = itertools.count()

    def left(text: str) -> str:
        return "".join([f"{event}\n\n" for event in text.split("\n\n")[:-1] if next(numbers) > after])

    opening = left(script.opening)
    events = [left(event) for event in script.events]
    return replace(script, opening=opening, events=events, closing=left(script.closing))


def script(call: Call, number: str, created: int) -> Script:
    """Events are numbered from 0 in the order in which they are sent."""
    writer = _Writer()
    started = _response(call, number, created, "in_progress", [], None)
    opening = writer.event("response.created", response=started) + writer.event(
        "response.in_progress", response=started
    )
    said = call.choices[0]
    events = _tool_events(writer, said, number) if said.tools else _text_events(writer, call, number)
    if not events:
        # Nothing is said: what announces and ends the item has no token to go with.
        opening += _nothing_said(writer, call, number)
    response = finished(call, number, created)
    closing = writer.event("response.incomplete" if said.is_capped else "response.completed", response=response)
    return Script(opening, events, closing, error_at=_error_event)


class _Writer:
    """Numbers the events."""

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, **fields: Any) -> str:
        text = f"event: {kind}\ndata: {json_text({'type': kind, 'sequence_number': self.number, **fields})}\n\n"
        self.number += 1
        return text


def _text_events(writer: _Writer, call: Call, number: str) -> list[str]:
    """One event a token; the first brings what announces the item and its part, the last what ends them."""
    said = call.choices[0]
    if not said.tokens:
        return []
    before = _part_opening(writer, said, number)
    kind = _delta_kind(said)
    top = _top_logprobs(call)
    place = f'"item_id":"msg_{number}","output_index":0,"content_index":0'
    events = []
    if top is None:
        logprobs = "" if said.is_refusal else ',"logprobs":[]'
        head, tail = f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":', f"{logprobs},{place}}}\n\n"
        first = writer.number
        events = [f'{head}{first + nth},"delta":"{escaped(token)}"{tail}' for nth, token in enumerate(said.tokens)]
        writer.number += len(events)
    else:
        position = {"item_id": f"msg_{number}", "output_index": 0, "content_index": 0}
        for token in said.tokens:
            extra = {} if said.is_refusal else {"logprobs": [_logprob(token, top)]}
            events.append(writer.event(kind, delta=token, **extra, **position))
    events[0] = before + events[0]
    events[-1] += _part_closing(writer, call, number)
    return events


def _tool_events(writer: _Writer, said: Said, number: str) -> list[str]:
    """As for text, item after item: each is announced with its first token and ended with its last."""
    events = []
    kind = "response.function_call_arguments"
    for index, ((name, tokens), item) in enumerate(zip(said.tool_tokens(), _tool_items(said, number), strict=True)):
        begun = {**item, "arguments": "", "status": "in_progress"}
        text = writer.event("response.output_item.added", output_index=index, item=begun)
        for token in tokens:
            events.append(text + writer.event(f"{kind}.delta", item_id=item["id"], output_index=index, delta=token))
            text = ""
        done = {"item_id": item["id"], "output_index": index, "name": name, "arguments": item["arguments"]}
        events[-1] += writer.event(f"{kind}.done", **done)
        events[-1] += writer.event("response.output_item.done", output_index=index, item=item)
    return events


def _nothing_said(writer: _Writer, call: Call, number: str) -> str:
    return _part_opening(writer, call.choices[0], number) + _part_closing(writer, call, number)


def _part_opening(writer: _Writer, said: Said, number: str) -> str:
    item = {
        "id": f"msg_{number}",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    place = {"item_id": f"msg_{number}", "output_index": 0, "content_index": 0}
    opening = writer.event("response.output_item.added", output_index=0, item=item)
    return opening + writer.event("response.content_part.added", **place, part=_part(said, "", []))


def _part_closing(writer: _Writer, call: Call, number: str) -> str:
    said = call.choices[0]
    item = _items(call, number)[0]
    place = {"item_id": f"msg_{number}", "output_index": 0, "content_index": 0}
    part = item["content"][0]
    if said.is_refusal:
        closing = writer.event("response.refusal.done", **place, refusal=said.text)
    else:
        closing = writer.event("response.output_text.done", **place, text=said.text, logprobs=part["logprobs"])
    closing += writer.event("response.content_part.done", **place, part=part)
    return closing + writer.event("response.output_item.done", output_index=0, item=item)


def _delta_kind(said: Said) -> str:
    return "response.refusal.delta" if said.is_refusal else "response.output_text.delta"


def _response(
    call: Call,
    number: str,
    created: int,
    status: str,
    output: list[dict[str, Any]],
    usage: dict[str, Any] | None,
) -> dict[str, Any]:
    body = call.body
    reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": created,
        "status": status,
        "background": call.in_background,
        "error": None,
        "incomplete_details": reason,
        "model": call.model,
        "output": output,
        "service_tier": "default",
        "usage": usage,
        **{name: default if body.get(name) is None else body[name] for name, default in _ECHOED.items()},
    }


def _status(call: Call) -> str:
    return "incomplete" if call.choices[0].is_capped else "completed"


def _items(call: Call, number: str) -> list[dict[str, Any]]:
    said = call.choices[0]
    if said.tools:
        return _tool_items(said, number)
    top = _top_logprobs(call)
    logprobs = [] if top is None or said.is_refusal else [_logprob(token, top) for token in said.tokens]
    part = _part(said, said.text, logprobs)
    return [
        {
            "id": f"msg_{number}",
            "type": "message",
            "status": _status(call),
            "role": "assistant",
            "content": [part],
        }
    ]


def _tool_items(said: Said, number: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"fc_{number}{nth:03d}",
            "type": "function_call",
            "status": "incomplete" if said.is_capped and nth == len(said.tools) - 1 else "completed",
            "call_id": f"call_{number}{nth:03d}",
            "name": name,
            "arguments": "".join(tokens),
        }
        for nth, (name, tokens) in enumerate(said.tool_tokens())
    ]


def _part(said: Said, text: str, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
    if said.is_refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}


def _usage(call: Call, output_tokens: int | None = None) -> dict[str, Any]:
    """`output_tokens`: None for all that is said."""
    output_tokens = call.output_tokens if output_tokens is None else output_tokens
    return {
        "input_tokens": call.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": call.input_tokens + output_tokens,
    }


def _top_logprobs(call: Call) -> int | None:
    """Log probabilities come if `include` asks for them; `top_logprobs` says how many alternatives."""
    top = integer(call.body, "top_logprobs", 0, TOP_LOGPROBS_MAX)
    include = call.body.get("include")
    wanted = isinstance(include, list) and "message.output_text.logprobs" in include
    return (top or 0) if wanted else None


def _logprob(token: str, top: int) -> dict[str, Any]:
    return {**token_logprob(token), "top_logprobs": top_logprobs(token, top)}


def _error_event(number: int) -> str:
    error = {"code": SERVER_ERROR.code, "message": SERVER_ERROR.message, "param": SERVER_ERROR.param}
    return f"event: error\ndata: {json_text({'type': 'error', 'sequence_number': number, **error})}\n\n"
