"""What `manage.py check` tells a host project, without a database."""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import pytest
from django.core.management import call_command, get_commands
from django.core.management.base import SystemCheckError
from django.db.utils import ConnectionHandler
from django.test import override_settings
from django.urls import include, path

from llmjobs import checks


@contextlib.contextmanager
def installed(*names: str) -> Iterator[None]:
    """A host project with these apps, and with what Django remembers of the commands forgotten."""
    forget = cast("Any", get_commands).cache_clear
    with override_settings(INSTALLED_APPS=[*names, "django.contrib.auth", "django.contrib.contenttypes"]):
        forget()
        yield
    forget()


def test_this_site_passes_its_own_checks() -> None:
    call_command("check", fail_level="WARNING")


def test_addresses_below_another_are_warned_of() -> None:
    with override_settings(ROOT_URLCONF=(path("llm/", include("llmjobs.urls")),)):
        (warning,) = checks.check_addresses()
    assert warning.id == "llmjobs.W016"
    assert "/llm/api/jobs, expected at /api/jobs" in warning.msg
    with override_settings(ROOT_URLCONF=()):
        assert checks.check_addresses() == [], "a project may do without them"


def test_runworker_is_ours() -> None:
    assert get_commands()["runworker"] == "llmjobs"


def test_channels_installed_before_llmjobs_is_an_error_with_the_way_out() -> None:
    """Django gives a command to the app that stands first."""
    with installed("channels", "llmjobs"):
        (error,) = checks.check_runworker_is_ours()
    assert error.id == "llmjobs.E002"
    assert "belongs to 'channels'" in error.msg
    assert error.hint is not None and "before 'channels'" in error.hint


def test_channels_installed_after_llmjobs_is_fine() -> None:
    with installed("llmjobs", "channels"):
        assert checks.check_runworker_is_ours() == []


@override_settings(LLMJOBS_LEASE_S="12")
def test_a_setting_of_the_wrong_type_is_an_error() -> None:
    with pytest.raises(SystemCheckError, match="LLMJOBS_LEASE_S: expected a number from 2 to 3,600, got '12'"):
        call_command("check")


@override_settings(LLMJOBS_LEAS_S=12)
def test_an_unknown_setting_is_an_error_that_suggests_one() -> None:
    with pytest.raises(SystemCheckError, match=r"did you mean LLMJOBS_LEASE_S\?"):
        call_command("check")


def test_a_deployment_whose_webhooks_reach_into_its_network_is_warned() -> None:
    with override_settings(LLMJOBS_WEBHOOK_ALLOW_PRIVATE=True):
        (warning,) = checks.check_webhooks_stay_outside()
    assert warning.id == "llmjobs.W001" and "inside your network" in warning.msg
    assert checks.check_webhooks_stay_outside() == []


def test_a_deployment_whose_metrics_are_open_is_warned() -> None:
    with override_settings(LLMJOBS_METRICS_OPEN=True):
        (warning,) = checks.check_metrics_have_a_reader()
    assert warning.id == "llmjobs.W002" and "LLMJOBS_METRICS_TOKEN" in (warning.hint or "")
    assert checks.check_metrics_have_a_reader() == []


def test_another_engine_than_postgres_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    monkeypatch.setattr(checks, "connections", ConnectionHandler(sqlite))
    (error,) = checks.check_engine()
    assert error.id == "llmjobs.E003"
    assert error.msg == "The default database is 'sqlite', expected 'postgresql'"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LLMJOBS_OPERATOR_WEBHOOK_URL", "ops.example.org/hook?token=s3cret", "expected a URL like https://"),
        ("LLMJOBS_OPERATOR_WEBHOOK_URL", "ftp://ops.example.org/s3cret", "expected a URL like https://"),
        ("LLMJOBS_OPERATOR_WEBHOOK_URL", "https://ops.example.org/a s3cret", "expected a URL like https://"),
        ("LLMJOBS_OPERATOR_WEBHOOK_URL", "https://ops.example.org:0/s3cret", "expected a URL like https://"),
        ("LLMJOBS_OPERATOR_WEBHOOK_SECRET", "s3cret", "expected whsec_ and 24 to 64 bytes"),
        ("LLMJOBS_OPERATOR_WEBHOOK_SECRET", "whsec_s3cret!", "expected whsec_ and 24 to 64 bytes"),
        ("LLMJOBS_OPERATOR_WEBHOOK_SECRET", "whsec_c2hvcnQ=", "expected whsec_ and 24 to 64 bytes"),
    ],
)
def test_an_operators_webhook_that_can_not_work_is_an_error_that_shows_no_secret(
    name: str, value: str, words: str
) -> None:
    with override_settings(**{name: value}), pytest.raises(SystemCheckError, match=words) as raised:
        call_command("check")
    assert name in str(raised.value)
    assert "s3cret" not in str(raised.value)


@override_settings(
    LLMJOBS_OPERATOR_WEBHOOK_URL="http://alerts:9000/hook?token=1", LLMJOBS_OPERATOR_WEBHOOK_SECRET="whsec_" + "A" * 32
)
def test_an_operators_webhook_may_be_a_host_of_one_word() -> None:
    assert checks.check_operator_webhook() == []


@pytest.mark.parametrize(
    "url", ["llm.example.org", "ftp://llm.example.org", "https://a b", "https://x.org/?q=1", "https://x.org/#a"]
)
def test_a_site_url_that_no_link_can_begin_with_is_an_error(settings, url):
    settings.LLMJOBS_SITE_URL = url
    [error] = checks.check_site_url()
    assert error.id == "llmjobs.E007"
    assert url in error.msg
    for fine in ("", "https://llm.example.org", "http://llm:8000/prefix/"):
        settings.LLMJOBS_SITE_URL = fine
        assert checks.check_site_url() == []
