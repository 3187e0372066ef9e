"""Lines of the log that anybody may read: an event as key=value, and of an error where it happened, not what it quotes.

Owns the format of every log of the site, daphne's and Django's own too. Invariant: the text of an exception is printed
only where its kind can't quote what somebody sent: a KeyError names a key of a prompt, and Postgres shows the row that
it refused. What is left out is at hand with DEBUG, which no site with other people's prompts has.
"""

import logging
import traceback
from collections.abc import Iterator
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
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LineFormatter(logging.Formatter):
    """`shows_all`: as logging does it by itself, for a developer's own machine."""

    def __init__(self, *args: Any, shows_all: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shows_all = shows_all

    def format(self, record: logging.LogRecord) -> str:
        if self._shows_all:
            return super().format(record)
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
