"""The site from outside: what its commands say when something is not configured, and what they use."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from project.secret_key import stored_secret_key
from tests.helpers import database_url, process_environment

PRINT_DATABASE = """
from django.db import connection
connection.ensure_connection()
print(connection.settings_dict['HOST'], connection.settings_dict['NAME'])
"""
PRINT_SECURITY = """
from django.conf import settings as s
print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS > 0, s.DEBUG)
"""


def manage(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """A command of ours, as in production (no test run), on this run's server."""
    surroundings = process_environment(**environ)
    for name in ("PYTEST_VERSION", "EMBEDDED_POSTGRES_URL", "SECRET_KEY"):
        if name not in environ:
            surroundings.pop(name, None)
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.django_db
def test_a_process_of_a_test_uses_the_test_s_database() -> None:
    done = manage("shell", "--no-imports", "-c", PRINT_DATABASE, SECRET_KEY="s" * 50)
    assert done.stdout.split() == [connection.settings_dict["HOST"], connection.settings_dict["NAME"]], done.stderr


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"LLMJOBS_LEASE": "12"},
            "Not configured: LLMJOBS_LEASE is not a setting of llmjobs; did you mean LLMJOBS_LEASE_S?",
        ),
        (
            {"LLMJOBS_POLL_S": "often"},
            "Not configured: LLMJOBS_POLL_S: expected a number from 0.05 to 60, got 'often'",
        ),
    ],
)
def test_a_wrong_variable_is_told_in_one_line(environ: dict[str, str], line: str) -> None:
    for command in ("check", "runworker", "migrate"):
        done = manage(command, **environ)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", line + "\n")


def test_a_site_with_a_database_of_its_own_needs_a_secret_key() -> None:
    done = manage("check")
    assert done.returncode == 1
    assert done.stderr.startswith("Not configured: SECRET_KEY is not set: expected 50 or more random characters")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["migrate", "check --database default"])
def test_a_database_that_cannot_be_reached_is_told_in_a_few_lines(command: str, tmp_path: Path) -> None:
    url = f"postgresql://nobody@/nothing?host={quote(str(tmp_path))}"
    done = manage(*command.split(), DATABASE_URL=url, SECRET_KEY="s" * 50)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 10, done.stderr
    assert "No such file or directory" in done.stderr


def test_the_traceback_is_there_for_who_asks() -> None:
    done = manage("check", "--traceback", LLMJOBS_POLL_S="often")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "True True True False"),
        ({"HTTPS_ONLY": "false"}, "False False False False"),
        ({"DEBUG": "true"}, "False False False True"),
    ],
)
def test_a_site_with_a_database_of_its_own_takes_https_for_granted(environ: dict[str, str], expected: str) -> None:
    done = manage("shell", "--no-imports", "-c", PRINT_SECURITY, SECRET_KEY="s" * 50, **environ)
    assert done.stdout.strip() == expected, done.stderr


def test_the_embedded_server_s_children_need_no_secret_and_no_https() -> None:
    child = manage("shell", "--no-imports", "-c", PRINT_SECURITY, EMBEDDED_POSTGRES_URL=database_url())
    assert child.stdout.strip() == "False False False False", child.stderr


def test_a_secret_key_that_was_made_is_kept_and_private(tmp_path: Path) -> None:
    first = stored_secret_key(tmp_path, allowed=True)
    assert len(first) >= 50
    assert stored_secret_key(tmp_path, allowed=True) == first
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
