"""What comes in: the body as one JSON object, the query string as parameters that are known.

Owns size, encoding and JSON itself. Does not own what the fields mean (`submissions.py`, listing.py).
Invariant: what leaves here means what the sender wrote (no key twice, no number that a float can't hold), and
is shallow enough for every recursion that follows.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from django.http import HttpRequest, QueryDict
from rest_framework.exceptions import UnsupportedMediaType

from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, RequestTooLarge

# A tool's schema goes 20 or 30 deep. Python's recursion ends at 1,000 frames, and a level takes several.
NESTING_MAX = 100


def parameters(query: QueryDict, known: Iterable[str], *, prefix: str | None = None) -> dict[str, str]:
    """Each parameter known (or begun with `prefix`), given once, and text that Postgres can store.

    Raises InvalidRequest with `param`.
    """
    given = {}
    for name, values in query.lists():
        if name not in known and not (prefix and name.startswith(prefix) and name != prefix):
            expected = ", ".join([*known, *([f"{prefix}<key>"] if prefix else [])]) or "none"
            raise InvalidRequest(
                f"no such query parameter: {name[:64]!r}; this address knows: {expected}",
                param=name,
                code="unknown_parameter",
            )
        if len(values) > 1:
            raise InvalidRequest(f"expected one value, got {len(values)}", param=name, code="duplicate_parameter")
        given[name] = str(values[0])
        if "\0" in name or "\0" in given[name]:
            raise InvalidRequest("expected text without NUL (U+0000)", param=name, code="invalid_text")
    return given


def read_json_object(request: HttpRequest) -> dict[str, Any]:
    """Raises UnsupportedMediaType, RequestTooLarge or InvalidRequest (code invalid_json)."""
    if request.content_type != "application/json":
        got = f"got {request.content_type!r}" if request.content_type else "got none"
        raise UnsupportedMediaType("", detail=f"Expected the Content-Type application/json, {got}.")
    if (encoding := request.headers.get("Content-Encoding", "identity").lower()) != "identity":
        detail = f"Expected a body without Content-Encoding, got {encoding[:64]!r}."  # what is small here may be huge
        raise UnsupportedMediaType("", detail=detail)
    raw = _read_bounded(request, conf.body_max_bytes)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        _invalid(f"the body is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}")
    data = _parse(text)
    if not isinstance(data, dict):
        _invalid(f"expected a JSON object, got {_named(data)}")
    return data


def _read_bounded(request: HttpRequest, most_bytes: int) -> bytes:
    """Without a length (chunked) the body is read up to one byte past the bound, and no further."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    length = int(declared) if declared.isdecimal() else None
    if length is not None and length > most_bytes:
        _too_large(f"{length} bytes", most_bytes)
    raw = request.read(most_bytes + 1 if length is None else length)
    if len(raw) > most_bytes:
        _too_large("more", most_bytes)
    return raw


def _too_large(got: str, most_bytes: int) -> NoReturn:
    raise RequestTooLarge(f"The body may have {most_bytes} bytes, and has {got}.", code="request_too_large")


def _parse(text: str) -> Any:
    try:
        data = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except json.JSONDecodeError as error:
        _invalid(f"{error.msg}, at line {error.lineno}, column {error.colno}")
    except RecursionError:
        _too_deep()
    except ValueError:
        _invalid("an integer has thousands of digits")
    if text.count("{") + text.count("[") > NESTING_MAX and _nesting(data) > NESTING_MAX:
        _too_deep()
    return data


def _nesting(value: Any) -> int:
    """Levels of arrays and objects, counted without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return depth


def _too_deep() -> NoReturn:
    _invalid(f"it may be nested {NESTING_MAX} levels deep, and is deeper")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        _invalid(f"the key {twice[:64]!r} occurs twice in an object")
    return found


def _constant(name: str) -> NoReturn:
    _invalid(f"{name} is no JSON number")


def _number(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        _invalid(f"the number {digits[:32]} is too large")
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


def _invalid(reason: str) -> NoReturn:
    raise InvalidRequest(f"The body is not valid JSON: {reason}.", code="invalid_json")
