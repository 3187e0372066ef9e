"""A configuration file's text, as entries; or all that is wrong with it, a line each. Needs no database.

Owns the shape: known tables and keys, one entry a name, values of their kind. What an entry refers to is looked up by
`changing.py`. Invariant: an entry says only what the file says; a key that is not there is not in `values`.
"""

import difflib
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from llmjobs.configuration.tables import TABLES, Table, Unfit, value_of

LINE_OF_TOML = "at line "
NAMES_SHOWN_MAX = 40


class Unreadable(Exception):
    """No TOML; says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """`place` is its path in the file, counted from 1: model[2]. `values` without the name; a reference is a name."""

    table: Table
    place: str
    name: str
    values: dict[str, Any]


@dataclass(slots=True)
class Configuration:
    """`problems`: a line each, in the order of the file. By table, entries are in that order too."""

    entries: dict[str, list[Entry]] = field(default_factory=lambda: {name: [] for name in TABLES})
    problems: list[str] = field(default_factory=list)

    def named(self, table: str) -> dict[str, Entry]:
        return {entry.name: entry for entry in self.entries[table]}


def parsed(data: bytes) -> Configuration:
    """Raises Unreadable where it is no TOML at all; everything else that is wrong is among `problems`."""
    found = Configuration()
    for name, rows in _document(data).items():
        if name not in TABLES:
            found.problems.append(
                f"{_plain(name)}: expected one of the tables {', '.join(TABLES)}{meant(name, TABLES)}"
            )
        elif not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            found.problems.append(f"{name}: expected tables that begin with [[{name}]], got something else")
        else:
            _read_table(found, TABLES[name], rows)
    return found


def listed(names: Iterable[str]) -> str:
    first = sorted(names)[: NAMES_SHOWN_MAX + 1]
    if not first:
        return "(there are none)"
    return ", ".join(first[:NAMES_SHOWN_MAX]) + (", …" if len(first) > NAMES_SHOWN_MAX else "")


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that is most like it, as the end of a sentence; "" if none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _document(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Unreadable(f"line {line}: expected UTF-8, got the byte 0x{data[error.start]:02x}") from None
    try:
        return tomllib.loads(text, parse_float=_decimal)
    except RecursionError:
        raise Unreadable("expected TOML, got arrays or tables nested too deep") from None
    except ValueError as error:
        said, _, where = str(error).rpartition(f" ({LINE_OF_TOML}")
        if said:
            raise Unreadable(f"line {where.rstrip(')')}: {said[0].lower()}{said[1:]}") from None
        lines = text.count("\n") + 1
        raise Unreadable(f"line {lines}: {str(error).removesuffix(' (at end of document)')}") from None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("nan")  # past all exponents: refused by whoever asks for a number


def _read_table(found: Configuration, table: Table, rows: list[dict[str, Any]]) -> None:
    places: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        place = f"{table.name}[{number}]"
        name, values = _read_entry(found, table, place, row)
        if name is None:
            continue
        if name in places:
            found.problems.append(f"{place}.name: expected each name once, got {name!r} as in {places[name]}")
            continue
        places[name] = place
        found.entries[table.name].append(Entry(table, place, name, values))


def _read_entry(
    found: Configuration, table: Table, place: str, row: dict[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The name is None where there is none that one could go on with."""
    values = {}
    if "name" not in row:
        found.problems.append(f"{place}.name: expected a name, got none")
    for key, raw in row.items():
        if key not in table.keys:
            found.problems.append(
                f"{place}.{_plain(key)}: expected one of the keys {', '.join(table.keys)}{meant(key, table.keys)}"
            )
            continue
        try:
            values[key] = value_of(table, key, raw)
        except Unfit as error:
            found.problems.append(f"{place}.{key}: {error}")
    return values.pop("name", None), values


def _plain(name: str) -> str:
    """A key of TOML may hold anything, line ends too."""
    return name if name.isprintable() and name else repr(name)
