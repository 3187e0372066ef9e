"""Fields of a request, checked one by one; what is wrong is told as OpenAI tells it.

Owns the wording of a 400. Invariant: what is returned has the type and the bounds that were asked for.
"""

from collections.abc import Mapping
from typing import Any

from llmjobs.providers.simulator.faults import ApiError


class BadRequest(Exception):
    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.error = ApiError(400, message, code=code, param=param)


def integer(body: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    """An optional whole number of a JSON body. Raises BadRequest."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "an integer", value)
    if value < least:
        raise _out_of_bounds(name, "below", "min", f">= {least}", value)
    if value > most:
        raise _out_of_bounds(name, "above", "max", f"<= {most}", value)
    return value


def number(name: str, text: str | bytes) -> float:
    """The number from 0 that a header or a directive holds. Raises BadRequest."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        shown = text.decode("latin-1") if isinstance(text, bytes) else text
        raise BadRequest(f"Expected a number from 0 for {name}, got {shown!r}.", param=name)
    return value


def objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """An optional array of objects of a JSON body; empty if it is not there. Raises BadRequest."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong_type(name, "an array of objects", value)
    return value


def wrong_type(name: str, expected: str, value: Any) -> BadRequest:
    message = f"Invalid type for '{name}': expected {expected}, but got {kind(value)} instead."
    return BadRequest(message, param=name, code="invalid_type")


def _out_of_bounds(name: str, side: str, bound: str, expected: str, value: int) -> BadRequest:
    message = f"Invalid '{name}': integer {side} {bound}imum value. Expected a value {expected}, but got {value}."
    return BadRequest(message, param=name, code=f"integer_{side}_{bound}_value")


def missing(name: str) -> BadRequest:
    return BadRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}
