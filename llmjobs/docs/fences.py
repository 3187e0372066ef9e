"""Fenced blocks of a Markdown text: what they are, what they hold, where they stand.

Owns the reading of fences and of their info strings (`sh lint="needs a container engine"`), for the page that shows a
block and for the test that runs it, so that both see the same. Does not own what a kind means.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

_FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """`marks` are the words of the info string behind the kind: `lint="…"`, or a word alone, whose value is ""."""

    kind: str
    marks: dict[str, str]
    code: str
    line: int  # of its fence, from 1
    indent: str


def blocks(text: str) -> list[Block]:
    return [_block(match, text) for match in _FENCE.finditer(text)]


def replaced(text: str, by: Callable[[Block], str]) -> str:
    """`text` with what `by` says in the place of each block."""
    return _FENCE.sub(lambda match: by(_block(match, text)), text)


def without(text: str) -> str:
    """`text` with empty lines in the place of its blocks: the numbers of lines stay."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def _block(match: re.Match[str], text: str) -> Block:
    kind, *words = shlex.split(match["info"]) or [""]
    marks = {name: value for name, _, value in (word.partition("=") for word in words)}
    indent = match["indent"]
    code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(keepends=True))
    return Block(kind, marks, code, text.count("\n", 0, match.start()) + 1, indent)
