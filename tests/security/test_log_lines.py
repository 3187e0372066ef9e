"""What the formatter of the site's log leaves out, and what it leaves in."""

import json
import logging
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, IntegrityError, OperationalError, connection

from llmjobs.states import State
from project.logs import JsonFormatter, LineFormatter, words

SECRET = "the text of a prompt"


def line_of(
    error: BaseException | None, message: str = "event=x", *args: Any, name: str = "llmjobs.x", **more: Any
) -> str:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, args, info)
    return LineFormatter("level=%(levelname)s %(message)s", **more).format(record)


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [ValueError(SECRET), KeyError(SECRET), RuntimeError(SECRET), TypeError(SECRET), AssertionError(SECRET),
     ExceptionGroup(SECRET, [ValueError(SECRET)]), UnicodeEncodeError("utf-8", SECRET, 0, 1, SECRET)],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_where_it_happened_is_told_and_not_what_it_quotes(error):
    line = line_of(caught(RuntimeError("x"), caught(error)))

    assert SECRET not in line
    assert type(error).__name__ in line
    assert 'test_log_lines.py", line' in line
    assert "which led to" in line


@pytest.mark.parametrize("error", [ValueError(SECRET), KeyError(SECRET)], ids=["value", "key"])
def test_an_error_in_a_message_is_its_kind_alone(error):
    assert line_of(None, "event=x reason=%s", error) == f"level=ERROR event=x reason={words(error)}"
    assert SECRET not in line_of(None, "event=x reason=%r", error)


@pytest.mark.parametrize("shows_all", [False, True])
def test_the_token_of_a_link_is_left_out_wherever_an_address_is_logged(shows_all):
    for path in ("/shared/TOKEN/", "/shared/TOKEN", "/shared/TOKEN/text?length=3"):
        for line in (
            line_of(None, "Not Found: %s", path, shows_all=shows_all),
            line_of(None, f'127.0.0.1:1 - "GET {path} HTTP/1.1" 200', shows_all=shows_all),
            line_of(caught(OSError(f"no answer to {path}")), shows_all=shows_all),
            JsonFormatter(shows_all=shows_all).format(logging.LogRecord("x", 30, "f", 1, "Gone: %s", (path,), None)),
        ):
            assert "/shared/…" in line
            assert "TOKEN" not in line, line


def test_what_is_about_the_network_and_the_program_is_told():
    assert "Connection refused" in line_of(caught(ConnectionRefusedError(111, "Connection refused")))
    assert "no attribute 'jb'" in line_of(caught(AttributeError("module has no attribute 'jb'")))
    assert "DATABASE_URL" in line_of(caught(ImproperlyConfigured("DATABASE_URL is wrong")))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("statement", "kind", "told"),
    [
        ("insert into llmjobs_tier (name, weight) values (%s, 1), (%s, 1)", IntegrityError, "23502 null value in"),
        ("select %s::text || %s::text::int::text", DataError, "22P02"),
        ("select pg_sleep(1), %s, %s", OperationalError, "57014 canceling statement"),
    ],
    ids=["a row that is refused", "a value that is none", "a time-out"],
)  # fmt: skip
def test_of_an_error_of_the_database_the_code_is_told_and_no_value(statement, kind, told):
    try:
        with pytest.raises(kind) as caught_, connection.cursor() as cursor:
            if kind is OperationalError:
                cursor.execute("set statement_timeout = '10ms'")
            cursor.execute(statement, [SECRET, SECRET])
    finally:
        connection.close()

    if kind is not OperationalError:
        assert SECRET in str(caught_.value)
    line = line_of(caught_.value)
    assert SECRET not in line
    assert told in line


def test_a_task_that_nobody_awaited_is_told_without_its_error():
    message = f"Task exception was never retrieved\nfuture: <Task finished exception=ValueError('{SECRET}')>"

    line = line_of(caught(ValueError(SECRET)), message, name="asyncio")

    assert "Task exception was never retrieved" in line
    assert SECRET not in line


def test_a_developer_sees_all():
    assert SECRET in line_of(caught(ValueError(SECRET)), shows_all=True)


def object_of(message: str, *args: Any, error: BaseException | None = None, name: str = "llmjobs.x") -> dict[str, Any]:
    info = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord(name, logging.INFO, __file__, 1, message, args, info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_as_json_an_event_is_its_fields_and_numbers_are_numbers():
    shown = object_of(
        "event=attempt job=%s attempt=%s client=%s waited_s=%.3f cost_usd=%s first_token_s=%s state=%s why='two words'",
        UUID(int=7), 2, "42", 0.12345, "0.000012", "-", State.DEAD,
    )  # fmt: skip

    at = shown.pop("at")
    assert datetime.fromisoformat(at).tzinfo is not None
    assert shown == {
        "level": "INFO", "logger": "llmjobs.x", "event": "attempt", "job": str(UUID(int=7)), "attempt": 2,
        "client": "42", "waited_s": 0.123, "cost_usd": 0.000012, "first_token_s": None, "state": "dead",
        "why": "two words",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "args", "shown"),
    [
        ("event=%s model=%s", ("provider_blocked", "m"), {"event": "provider_blocked", "model": "m"}),
        ("event=pruned %s=%s kept=%s", ("jobs", 5, 0), {"event": "pruned", "jobs": 5, "kept": 0}),
        ("event=gone found=%r: called anew", ("x",), {"event": "gone", "message": "event=gone found='x': called anew"}),
        ("HTTP %s", ("GET /",), {"message": "HTTP GET /"}),
        ("event=x reason=%s", (ValueError(SECRET),), {"event": "x", "reason": words(ValueError(SECRET))}),
        ("event=x job=%s", ('1"\n{"event": "forged"}',), {"event": "x", "job": '1"\n{"event": "forged"}'}),
    ],
)
def test_as_json_no_line_is_lost_split_or_forged(message, args, shown):
    assert {name: value for name, value in object_of(message, *args).items() if name in shown} == shown


def test_as_json_an_error_is_told_without_what_it_quotes():
    shown = object_of("event=x", error=caught(RuntimeError("x"), caught(KeyError(SECRET))))

    assert 'test_log_lines.py", line' in shown["exception"] and "which led to" in shown["exception"]
    assert SECRET not in json.dumps(shown)
    task = f"Task exception was never retrieved\nfuture: <Task finished exception=ValueError('{SECRET}')>"
    assert SECRET not in json.dumps(object_of(task, error=caught(ValueError(SECRET)), name="asyncio"))
