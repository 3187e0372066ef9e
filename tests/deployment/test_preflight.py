"""What `manage.py check --deploy --database default` says of a real server, and of a real pooler before it."""

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from llmjobs import checks as settings_checks
from llmjobs import preflight
from project.database_url import connection_settings
from tests.deployment.pooling import binary, pgbouncer
from tests.factories import make_provider
from tests.helpers import database_url

pytestmark = pytest.mark.django_db(transaction=True)

needs_pgbouncer = pytest.mark.skipif(
    binary() is None and not os.environ.get("REQUIRE_SERVERS"), reason="PgBouncer is not installed here"
)


def found(**options: Any) -> dict[str, str]:
    """What is said of the database and by ours alone: {id: message}."""
    told = checks.run_checks(
        tags=[checks.Tags.database], include_deployment_checks=True, databases=["default"], **options
    )
    return {str(message.id): message.msg for message in told if str(message.id).startswith("llmjobs.")}


@pytest.fixture
def keeps_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' server does not: it is thrown away."""
    look = preflight.LOOK.replace("current_setting('fsync') = 'on'", "true")
    monkeypatch.setattr(preflight, "LOOK", look.replace("current_setting('full_page_writes') = 'on'", "true"))


@pytest.fixture
def has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may use the server's connections meanwhile."""
    monkeypatch.setattr(preflight, "WORKER_CONNECTIONS", 0)


def test_a_server_as_it_should_be_is_not_complained_of(keeps_commits, has_room):
    assert found() == {}
    assert checks.run_checks(tags=[checks.Tags.database], include_deployment_checks=True, databases=None) == []


def test_a_server_that_may_lose_commits_is_told_of(has_room):
    assert re.search("may lose commits", found()["llmjobs.W012"])


def test_few_connections_and_a_clock_that_is_off_are_told_of(keeps_commits, monkeypatch):
    monkeypatch.setattr(preflight, "WORKER_CONNECTIONS", 100_000)
    monkeypatch.setattr(preflight.time, "time", lambda: 1_000_000.0)
    told = found()
    assert set(told) == {"llmjobs.W011", "llmjobs.W013"}
    assert "ahead of this host's" in told["llmjobs.W011"]


def test_a_standby_is_an_error_for_migrate_too(monkeypatch):
    monkeypatch.setattr(preflight, "LOOK", preflight.LOOK.replace("pg_is_in_recovery()", "true"))
    told = checks.run_checks(tags=[checks.Tags.database], databases=["default"])
    assert [message.id for message in told if message.id == "llmjobs.E010"]
    assert all(message.id != "llmjobs.W012" for message in told), "migrate is not asked what only a deployment is"


def test_migrations_that_one_of_the_two_lacks_are_named(keeps_commits, has_room):
    recorder = MigrationRecorder(connection)
    last = max(name for app, name in recorder.applied_migrations() if app == "llmjobs")
    recorder.record_unapplied("llmjobs", last)
    recorder.record_applied("llmjobs", "9999_of_tomorrow")
    try:
        told = found()
    finally:
        recorder.record_applied("llmjobs", last)
        recorder.record_unapplied("llmjobs", "9999_of_tomorrow")
    assert set(told) == {"llmjobs.W009", "llmjobs.W010"}
    assert f"llmjobs.{last}" in told["llmjobs.W009"] and "llmjobs.9999_of_tomorrow" in told["llmjobs.W010"]


def test_a_provider_s_key_that_is_not_in_this_environment_is_named(keeps_commits, has_room, monkeypatch):
    make_provider("here", api_key_env="HERE_API_KEY")
    make_provider("away", api_key_env="AWAY_API_KEY")
    make_provider("paused", api_key_env="PAUSED_API_KEY", is_paused=True)
    monkeypatch.setenv("HERE_API_KEY", "sk-secret")
    told = found()
    assert told == {"llmjobs.W008": "The provider 'away' takes its key from AWAY_API_KEY, which is not set here"}


@contextmanager
def behind(url: str) -> Iterator[None]:
    """This process's own connection leads to `url` instead."""
    before = {**connection.settings_dict}
    connection.close()
    connection.settings_dict.update(connection_settings(url), DISABLE_SERVER_SIDE_CURSORS=True)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.clear()
        connection.settings_dict.update(before)


@needs_pgbouncer
def test_a_pooler_is_tried_for_what_it_breaks(settings, keeps_commits, has_room):
    """As shipped it breaks nothing; without its two lines, or the two variables, it is said what to set."""
    direct = database_url()
    with pgbouncer() as pooler:
        settings.LLMJOBS_LISTEN_DSN = direct
        settings.LLMJOBS_PREPARE_STATEMENTS = pooler.prepares
        with behind(pooler.url):
            assert found() == {}
            settings.LLMJOBS_LISTEN_DSN = ""
            assert set(found()) == {"llmjobs.W007"}
    with pgbouncer(**({"max_prepared_statements": "0"} if pooler.prepares else {})) as pooler, behind(pooler.url):
        settings.LLMJOBS_LISTEN_DSN, settings.LLMJOBS_PREPARE_STATEMENTS = direct, True
        assert set(found()) == {"llmjobs.E008"}
    with pgbouncer(pool_mode="session") as pooler, behind(pooler.url):
        settings.LLMJOBS_LISTEN_DSN = ""
        assert found() == {}, "a session of one's own keeps what it was told"


def test_an_address_for_listen_is_tried_without_a_pooler_too(settings, keeps_commits, has_room):
    name = connection.settings_dict["NAME"]
    for address, fault in {
        "postgresql://nobody@127.0.0.1:1/none": "llmjobs.E011",
        database_url().replace(f"/{name}?", "/postgres?"): "llmjobs.W007",  # another database
        database_url(): None,
    }.items():
        settings.LLMJOBS_LISTEN_DSN = address
        assert set(found()) - {"llmjobs.W014"} == ({fault} if fault else set())


# What needs no database.


@pytest.mark.parametrize(
    ("check", "changes", "fault"),
    [
        ("check_hosts", {"ALLOWED_HOSTS": ["*"]}, "W003"),
        ("check_hosts", {"ALLOWED_HOSTS": ["localhost", "[::1]"]}, "W003"),
        ("check_hosts", {"ALLOWED_HOSTS": ["localhost", "llm.example.org"]}, None),
        ("check_proxy_header", {"SECURE_SSL_REDIRECT": True, "SECURE_PROXY_SSL_HEADER": None}, "W004"),
        ("check_proxy_header", {"SECURE_SSL_REDIRECT": True, "SECURE_PROXY_SSL_HEADER": ("A", "https")}, None),
        ("check_proxy_header", {"SECURE_SSL_REDIRECT": False, "SECURE_PROXY_SSL_HEADER": None}, None),
        ("check_static_files", {"STATIC_ROOT": None}, None),
        ("check_static_files", {"STATIC_ROOT": "/nowhere"}, "W005"),
        ("check_operators_are_told", {"ADMINS": []}, "W006"),
        ("check_operators_are_told", {"ADMINS": [("Ops", "ops@example.com")]}, None),
        ("check_operators_are_told", {"ADMINS": [], "LLMJOBS_OPERATOR_WEBHOOK_URL": "https://ops.example"}, None),
        ("check_heartbeat", {"LLMJOBS_LEASE_S": 12, "LLMJOBS_HEARTBEAT_S": 6}, "E009"),
        ("check_heartbeat", {"LLMJOBS_LEASE_S": 12, "LLMJOBS_HEARTBEAT_S": 5.9}, None),
    ],
)
def test_what_settings_alone_tell(check, changes, fault, settings):
    for name, value in changes.items():
        setattr(settings, name, value)
    told = [message.id for message in getattr(settings_checks, check)()]
    assert told == ([f"llmjobs.{fault}"] if fault else [])


def test_cursors_that_a_pooler_would_lose_are_told_of(settings, monkeypatch):
    settings.LLMJOBS_LISTEN_DSN = "postgresql://db.example.com/llmjobs"
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", False)
    assert [message.id for message in settings_checks.check_cursors()] == ["llmjobs.W014"]
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    assert settings_checks.check_cursors() == []


def test_an_address_for_listen_that_is_none_stops_a_worker_and_is_not_quoted(settings):
    settings.LLMJOBS_LISTEN_DSN = "postgresql//llmjobs:s3cret@db.example.com/llmjobs"
    (error,) = settings_checks.check_listen_dsn()
    assert error.id == "llmjobs.E012" and "expected postgresql://" in error.msg and "s3cret" not in error.msg
    with pytest.raises(SystemCheckError, match="E012"):
        call_command("runworker", "--until-empty", skip_checks=False)
    settings.LLMJOBS_LISTEN_DSN = "postgresql://llmjobs:s3cret@db.example.com/llmjobs"
    assert settings_checks.check_listen_dsn() == []


def test_every_check_has_an_id_of_its_own_and_a_hint():
    sources = [inspect.getsource(module) for module in (settings_checks, preflight)]
    ids = re.findall(r'id="(llmjobs\.[EW]\d{3})"', "".join(sources))
    assert len(ids) == len(set(ids)), sorted(ids)
    assert sum(source.count("hint=") for source in sources) == len(ids)
