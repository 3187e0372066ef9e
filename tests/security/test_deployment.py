"""The site as it is deployed: what `check --deploy` says, what is refused at the start, what its answers carry."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.helpers import process_environment

pytestmark = pytest.mark.django_db

PRODUCTION = {
    "DATABASE_URL": "postgresql://llmjobs:password@db.example.com/llmjobs",  # which no check asks
    "SECRET_KEY": secrets.token_urlsafe(50),
    "ALLOWED_HOSTS": "llmjobs.example.com",
    "TRUST_X_FORWARDED_PROTO": "true",
    "ADMINS": "Ops <ops@example.com>",
}
ASK = """
from django.conf import settings
from django.test import Client

def ask(path, **how):
    found = Client(raise_request_exception=False).get(path, headers={"Host": "llmjobs.example.com"}, **how)
    print(found.status_code, found.get("Location", "-"), found.get("Strict-Transport-Security", "-"),
          found.get("Content-Security-Policy", "-").split(";")[0], found.get("X-Frame-Options", "-"),
          found.get("X-Content-Type-Options", "-"), found.get("Referrer-Policy", "-"),
          found.get("Cross-Origin-Opener-Policy", "-"), sep=" | ")
    return found

ask("/login/")
found = ask("/login/", secure=True)
print(*(f"{name}:{bool(morsel['secure'])}:{morsel['samesite']}" for name, morsel in found.cookies.items()))
print(settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY, settings.SESSION_COOKIE_SAMESITE)
print(settings.DEBUG)
"""


def manage(*arguments: str, **environ: str | None) -> "subprocess.CompletedProcess[str]":
    """As in production: of this process's environment nothing but what a program needs. None: not set."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}
    given = {name: value for name, value in {**kept, **PRODUCTION, **environ}.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=settings.BASE_DIR, env=given, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_env_file() -> None:
    if (Path(settings.BASE_DIR) / ".env").exists():
        pytest.skip("a .env file says here what production is")


def test_the_check_for_deployment_has_nothing_to_say():
    done = manage("check", "--deploy", "--fail-level", "DEBUG")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("System check identified no issues"), done.stdout


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"DEBUG": "true"}, "security.W018"),
        ({"HTTPS_ONLY": "false", "SECRET_KEY": "short"}, "security.W009"),
        ({"TRUST_X_FORWARDED_PROTO": "false", "ALLOWED_HOSTS": "*", "ADMINS": ""}, "llmjobs.W004"),
    ],
)
def test_what_is_not_safe_is_said(environ, fault):
    done = manage("check", "--deploy", "--fail-level", "WARNING", **environ)

    assert done.returncode == 1
    assert fault in done.stderr


def test_without_a_secret_key_it_does_not_start():
    for missing in (None, ""):
        done = manage("check", SECRET_KEY=missing)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("Not configured: SECRET_KEY is not set")


def test_debugging_has_to_be_asked_for_in_so_many_words():
    done = manage("check", DEBUG="maybe")

    assert done.returncode == 1
    assert "DEBUG: expected true or false" in done.stderr


def test_pages_go_by_https_alone_with_every_header():
    """By HTTP they are sent on; the session's cookie goes to no script, no other site, no open line."""
    done = manage("shell", "--no-imports", "-c", ASK)
    assert done.returncode == 0, done.stderr
    by_http, by_https, cookies, session, debugging = done.stdout.splitlines()

    assert by_http.startswith("301 | https://llmjobs.example.com/login/ | ")
    assert by_https.split(" | ") == [
        "200", "-", "max-age=31536000; includeSubDomains", "default-src 'self'", "DENY", "nosniff", "same-origin",
        "same-origin",
    ]  # fmt: skip
    assert cookies == "csrftoken:True:Lax"
    assert (session, debugging) == ("True True Lax", "False")


def test_a_test_uses_the_tests_database_and_not_production():
    """That the environment above is one of its own."""
    assert process_environment()["DATABASE_URL"] != PRODUCTION["DATABASE_URL"]
