"""JSON as the sender wrote it, or an error that says what is wrong with it.

Owns text and JSON itself, of a request's body and of a line among many. Does not own what its fields mean
(`submissions.py`). Invariant: what leaves here has no key twice and no number that a float can't hold, and is shallow
enough for every recursion that follows.
"""

import json
import math
from typing import Any, NoReturn

from llmjobs.errors import InvalidRequest

# A tool's schema goes 20 or 30 deep. Python's recursion ends at 1,000 frames, and a level takes several.
NESTING_MAX = 100


def parse_object(raw: bytes, what: str = "body") -> dict[str, Any]:
    """`what` it is, for the message. Raises InvalidRequest (code invalid_json)."""
    try:
        data = _parse(_text(raw))
    except _Invalid as error:
        raise InvalidRequest(f"The {what} is not valid JSON: {error}.", code="invalid_json") from None
    return data


class _Invalid(Exception):
    """Why it is no JSON object, as words behind a colon."""


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Invalid(f"it is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except json.JSONDecodeError as error:
        raise _Invalid(f"{error.msg}, at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        _too_deep()
    except ValueError:
        raise _Invalid("an integer has thousands of digits") from None
    if text.count("{") + text.count("[") > NESTING_MAX and _nesting(data) > NESTING_MAX:
        _too_deep()
    if not isinstance(data, dict):
        raise _Invalid(f"expected a JSON object, got {_named(data)}")
    return data


def _nesting(value: Any) -> int:
    """Levels of arrays and objects, counted without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return depth


def _too_deep() -> NoReturn:
    raise _Invalid(f"it may be nested {NESTING_MAX} levels deep, and is deeper")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Invalid(f"the key {twice[:64]!r} occurs twice in an object")
    return found


def _constant(name: str) -> NoReturn:
    raise _Invalid(f"{name} is no JSON number")


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Invalid(f"the number {digits[:32]} is too large")
    return number


def _named(value: Any) -> str:
    names = {
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names[type(value)]
