"""A trace: when calls arrived and how many tokens each had, from a CSV file with the columns of the Azure LLM traces.

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:15:46.6805900,374,44

Owns the format. Invariant: what `read` returns is in the order of arrival and within bounds; the first thing that is
not is told with its line.
"""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
INPUT_TOKENS_MAX = 1_000_000  # four characters each: a body of 4 MB
OUTPUT_TOKENS_MAX = 200_000  # what the simulator says at most


class TraceError(Exception):
    """The message has the file, the line, what was expected and what came."""


@dataclass(frozen=True, slots=True)
class TraceCall:
    """`at_s` counts from the first call."""

    at_s: float
    input_tokens: int
    output_tokens: int


def read(path: Path, limit: int | None = None) -> list[TraceCall]:
    """The first `limit` calls. Raises TraceError, OSError."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = csv.reader(file, strict=True)
        try:
            header = next(lines, None)
            if header != COLUMNS:
                raise TraceError(f"expected {','.join(COLUMNS)}, got {_shown(','.join(header or []))}")
            calls = list(itertools.islice(_calls(lines), limit))
        except (TraceError, csv.Error) as error:
            raise TraceError(f"{path}, line {max(lines.line_num, 1)}: {error}") from None
    if not calls:
        raise TraceError(f"{path}, line {lines.line_num}: expected at least one call, got the end of the file")
    return calls


def _calls(lines: Iterator[list[str]]) -> Iterator[TraceCall]:
    first_at: datetime | None = None
    last_at_s = 0.0
    for fields in lines:
        if not fields:
            continue  # an empty line
        if len(fields) != len(COLUMNS):
            raise TraceError(f"expected {len(COLUMNS)} fields, got {len(fields)}")
        at = _moment(fields[0])
        first_at = first_at or at
        at_s = (at - first_at).total_seconds()
        if at_s < last_at_s:
            raise TraceError(f"expected a time not before the line above, got {_shown(fields[0])}")
        last_at_s = at_s
        yield TraceCall(
            at_s, _whole(COLUMNS[1], fields[1], INPUT_TOKENS_MAX), _whole(COLUMNS[2], fields[2], OUTPUT_TOKENS_MAX)
        )


def _moment(text: str) -> datetime:
    """ISO 8601, also with seven digits behind the seconds; without a zone it is UTC."""
    whole, point, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    fraction = rest[: min(digits, 6)].ljust(6 if point else 0, "0")
    try:
        at = datetime.fromisoformat(whole + point + fraction + rest[digits:])
    except ValueError:
        raise TraceError(f"{COLUMNS[0]}: expected a time as 2023-11-16 18:15:46.68, got {_shown(text)}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _whole(name: str, text: str, most: int) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and int(text) <= most):
        raise TraceError(f"{name}: expected a whole number from 0 to {most:,}, got {_shown(text)}")
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
