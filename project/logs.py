"""Lines of the log that anybody may read: an event as key=value, and of an error where it happened, not what it quotes.

Owns the format of every log of the site, daphne's and Django's own too: lines for people, or an object of JSON a line
for machines (LLMJOBS_LOG_FORMAT=json), whose fields are those of the same lines. Invariant: the text of an exception is
printed only where its kind can't quote what somebody sent: a KeyError names a key of a prompt, and Postgres shows the
row that it refused. What is left out is at hand with DEBUG, which no site with other people's prompts has.
"""

import json
import logging
import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import django.db
import psycopg
from django.core.exceptions import ImproperlyConfigured

from llmjobs.errors import DatabaseUnavailable

# About the program, the system or the network, never about a value.
PLAIN = (
    OSError, NameError, AttributeError, ImportError, MemoryError, RecursionError, ImproperlyConfigured,
    DatabaseUnavailable, SystemExit,
)  # fmt: skip
DATA_ERRORS = "22"  # SQLSTATE class: the value that was refused stands in the first line already
# Templates of events, as all of llmjobs writes them: event=word name=%s name=%.3f name='some words'
VALUE = r"(?:%[-.\d]*[a-z]|'[^']*'|[^\s%']+)"
FIELD = re.compile(rf"(\w+|%s)=({VALUE})")
EVENT = re.compile(rf"event={VALUE}(?: (?:\w+|%s)={VALUE})*")
UNITS = ("_s", "_ms", "_usd")
# Of a link that shows a job: who reads the log shall not read that too.
LINK = re.compile(r"(/shared/)[^\s\"']+")
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """`shows_all`: as logging does it by itself, for a developer's own machine."""

    def __init__(self, *args: Any, shows_all: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shows_all = shows_all

    def format(self, record: logging.LogRecord) -> str:
        return without_tokens(super().format(record) if self._shows_all else self._line(record))

    def _line(self, record: logging.LogRecord) -> str:
        shown = logging.makeLogRecord(record.__dict__)
        shown.exc_text = None  # what another handler's formatter made of it
        if isinstance(shown.args, tuple):
            shown.args = tuple(words(part) if isinstance(part, BaseException) else part for part in shown.args)
        if record.name == "asyncio":  # it writes the task and its exception into its message
            shown.msg, shown.args = record.getMessage().partition("\n")[0], ()
        return super().format(shown)

    def formatException(self, ei: ExceptionInfo) -> str:
        if self._shows_all or ei[1] is None:
            return super().formatException(ei)
        return "".join(_told(ei[1])).rstrip("\n")


class JsonFormatter(LineFormatter):
    """An object a line: at, level, logger, and the fields of an event as they stand in its template.

    `event=attempt job=%s waited_s=%.3f` and its arguments are {"event": "attempt", "job": "…", "waited_s": 0.123}:
    numbers stay numbers, and what a line shows as - is null. A line that is no event has a `message`.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown: dict[str, Any] = {"at": at, "level": record.levelname, "logger": record.name}
        shown |= self._fields(record) or self._message(record)
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return without_tokens(json.dumps(shown, ensure_ascii=False, default=str))

    def _fields(self, record: logging.LogRecord) -> dict[str, Any] | None:
        """None: it is no event, or its template and what it was given do not fit."""
        template, arguments = record.msg, record.args or ()
        if not isinstance(template, str) or not isinstance(arguments, tuple) or not EVENT.fullmatch(template):
            return None
        given = iter(arguments)
        fields: dict[str, Any] = {}
        try:
            for name, value in FIELD.findall(template):
                known = str(next(given)) if name == "%s" else name
                fields[known] = self._value(known, value, next(given)) if value[0] == "%" else value.strip("'")
        except (StopIteration, TypeError, ValueError):
            return None
        return fields if next(given, None) is None else None

    def _value(self, name: str, conversion: str, given: Any) -> Any:
        if isinstance(given, BaseException) and not self._shows_all:
            return words(given)
        if given is None or given == "-":
            return None
        if isinstance(given, float) or name.endswith(UNITS):
            return float(conversion % given)
        return given if isinstance(given, (bool, int)) else str(given)

    def _message(self, record: logging.LogRecord) -> dict[str, Any]:
        plain = logging.makeLogRecord(record.__dict__)
        plain.exc_info = plain.exc_text = plain.stack_info = None
        message = super().format(plain)
        event = re.match(r"event=(\w+)", message)
        return ({"event": event[1]} if event else {}) | {"message": message}


def without_tokens(text: str) -> str:
    """An address as it may be logged."""
    return LINK.sub(r"\1…", text)


def words(error: BaseException) -> str:
    """Its kind, and as much of its text as can quote nobody."""
    kind = type(error).__qualname__
    if isinstance(error, (psycopg.Error, django.db.Error)):
        cause = error if isinstance(error, psycopg.Error) else error.__cause__
        sqlstate = getattr(cause, "sqlstate", None) or ""
        text = "" if sqlstate.startswith(DATA_ERRORS) else str(error).strip().partition("\n")[0]
        return f"{kind}: {sqlstate} {text}".strip()
    return f"{kind}: {error}" if isinstance(error, PLAIN) else f"{kind} (its text is not logged)"


def _told(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _told(before)
        yield "which led to\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{words(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield "one of them:\n"
            yield from _told(part)
