"""What is said to a call: text, a refusal or tool calls, of the length that was asked for.

Owns which of them it is and how many tokens it has. Does not write them down (`chat.py`, `responses.py`).
Invariant: no choice is longer than the body's cap; one that was cut by it says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmjobs.providers.simulator import fields
from llmjobs.providers.simulator.fields import BadRequest
from llmjobs.providers.simulator.words import arguments_for, pieces_of, seed_of, tokens_of

TOKENS_MAX = 200_000  # of one answer: bounds its memory to some 50 MB
CHOICES_MAX = 128
TOOL_CALLS_MAX = 128
STAMP = "[[stamp]]"  # stands in a script where the time will be
REFUSAL = "I'm sorry, but I can't help with that."

Tool = tuple[str, Any]  # its name, and the JSON schema of its parameters


@dataclass(frozen=True, slots=True)
class Said:
    """One choice. `tokens` are its pieces in order; those of several tool calls follow each other."""

    tokens: tuple[str, ...]
    is_refusal: bool = False
    tools: tuple[tuple[str, int], ...] = ()  # (name, how many of the tokens are its arguments)
    is_capped: bool = False
    is_stamped: bool = False

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def tool_tokens(self) -> list[tuple[str, tuple[str, ...]]]:
        """Each tool call with its own tokens."""
        calls, at = [], 0
        for name, count in self.tools:
            calls.append((name, self.tokens[at : at + count]))
            at += count
        return calls


def say(
    body: Mapping[str, Any],
    directives: Mapping[str, str],
    *,
    seed: bytes,
    wanted_header: bytes | None,
    max_tokens: int | None,
    is_chat: bool,
) -> tuple[Said, ...]:
    """The choices of an answer, all of one length: `n` of them for chat, else one. Raises BadRequest."""
    tools = _called_tools(body, directives, is_chat=is_chat)
    count = (fields.integer(body, "n", 1, CHOICES_MAX) or 1) if is_chat else 1
    wanted = _wanted_tokens(wanted_header, directives, seed)
    kept = wanted if max_tokens is None else min(wanted, max_tokens)
    if kept * count > TOKENS_MAX:
        raise BadRequest(
            f"Expected at most {TOKENS_MAX} output tokens over all choices, got {kept * count}.", param="n"
        )
    if tools:
        return (_tool_calls(tools, seed, max_tokens),) * count
    if "refusal" in directives:
        return (cut(Said(pieces_of(REFUSAL), is_refusal=True), max_tokens),) * count
    if "stamp" in directives:
        return (Said((STAMP + " ",) * kept, is_capped=kept < wanted, is_stamped=True),) * count
    seeds = [seed, *[seed_of(seed.hex(), str(nth)) for nth in range(1, count)]]
    return tuple([Said(tokens_of(own, kept), is_capped=kept < wanted) for own in seeds])


def _wanted_tokens(header: bytes | None, directives: Mapping[str, str], seed: bytes) -> int:
    for name, text in (("x-sim-output-tokens", header), ("[[tokens]]", directives.get("tokens"))):
        if text is not None:
            number = fields.number(name, text)
            if number != int(number) or number > TOKENS_MAX:
                raise BadRequest(
                    f"Expected a whole number from 0 to {TOKENS_MAX} for {name}, got {number:g}.", param=name
                )
            return int(number)
    return 20 + int.from_bytes(seed[:4], "big") % 101


def _called_tools(body: Mapping[str, Any], directives: Mapping[str, str], *, is_chat: bool) -> list[Tool]:
    """As many of the offered functions as the directive says, or one if `tool_choice` demands it."""
    choice = body.get("tool_choice")
    named = choice if isinstance(choice, dict) else None
    if "tool_calls" in directives:
        count = int(fields.number("[[tool_calls]]", directives["tool_calls"] or "1"))
    else:
        count = 1 if choice == "required" or named else 0
    if not count:
        return []
    offered = [tool for tool in fields.objects(body, "tools") if tool.get("type") == "function"]
    functions = [_object(tool, "function") for tool in offered] if is_chat else offered
    tools = [(tool["name"], tool.get("parameters")) for tool in functions if isinstance(tool.get("name"), str)]
    if named:
        wanted = (_object(named, "function") if is_chat else named).get("name")
        tools = [tool for tool in tools if tool[0] == wanted]
        if wanted and not tools:
            raise BadRequest(f"Tool choice '{wanted}' not found in 'tools' parameter.", param="tool_choice")
    return [tools[nth % len(tools)] for nth in range(min(count, TOOL_CALLS_MAX))] if tools else []


def _tool_calls(tools: list[Tool], seed: bytes, max_tokens: int | None) -> Said:
    pieces: list[str] = []
    called = []
    for nth, (name, parameters) in enumerate(tools):
        arguments = pieces_of(arguments_for(parameters, seed_of(seed.hex(), name, str(nth))))
        called.append((name, len(arguments)))
        pieces.extend(arguments)
    return cut(Said(tuple(pieces), tools=tuple(called)), max_tokens)


def cut(said: Said, max_tokens: int | None) -> Said:
    """As long as the body's cap lets it be."""
    if max_tokens is None or len(said.tokens) <= max_tokens:
        return said
    tools, left = [], max_tokens
    for name, count in said.tools:
        if left > 0:
            tools.append((name, min(count, left)))
            left -= count
    return Said(said.tokens[:max_tokens], said.is_refusal, tuple(tools), is_capped=True)


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}
