"""The checks that ask the server: with `migrate`, `check --database`, and at the start of our commands."""

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError

from llmjobs import checks

pytestmark = pytest.mark.django_db


def test_a_supported_server_passes() -> None:
    call_command("check", databases=["default"])
    checks.require_supported_server()


def test_a_server_that_is_too_old_is_named_with_what_was_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OLDEST_POSTGRES", 99)
    with pytest.raises(SystemCheckError, match=r"The server is Postgres \d\d, expected 99 or newer"):
        call_command("check", databases=["default"])
    with pytest.raises(CommandError, match="expected 99 or newer"):
        checks.require_supported_server()


def test_a_plain_check_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "server_fault", lambda: pytest.fail("asked"))
    call_command("check")
