"""Connections beside Django's: to the same database, and back soon after an outage."""

import traceback

import psycopg
import pytest
from django.db import connection

from llmjobs import database


def test_they_go_where_django_goes(db):
    params = database.dsn()
    assert params["dbname"] == connection.settings_dict["NAME"]
    assert params["autocommit"] is True
    assert not {"cursor_factory", "context", "pool"} & params.keys(), "only Django's own backend understands these"


def test_a_server_that_vanished_without_a_word_is_given_up(db):
    """Else a claim's connection would wait for TCP's own patience, a quarter of an hour."""
    assert 0 < database.dsn()["tcp_user_timeout"] <= 30_000


def test_what_can_not_go_through_a_pooler_has_an_address_of_its_own(settings):
    settings.LLMJOBS_LISTEN_DSN = "postgresql://direct/db"
    assert database.dsn(direct=True)["conninfo"] == "postgresql://direct/db"
    assert "conninfo" not in database.dsn()


async def test_an_address_that_is_none_is_not_quoted_where_it_fails(settings):
    """Its password would stand in a line of the log at every heartbeat."""
    settings.LLMJOBS_LISTEN_DSN = "postgresql//llmjobs:s3cret@db.example.com/llmjobs"
    with pytest.raises(psycopg.ProgrammingError, match="expected postgresql://") as caught:
        database.connect_sync(2)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(psycopg.ProgrammingError, match="expected postgresql://"):
        await database.connect_async()


async def test_a_pool_is_back_within_seconds_however_long_the_outage_was():
    """Left to itself, psycopg's waits 1, 2, 4 … seconds between attempts, up to minutes."""
    pool = database.async_pool(min_size=1, max_size=2)
    assert pool.reconnect_timeout <= database.POOL_TIMEOUT_S


@pytest.mark.parametrize("timeout_s", [0.1, 30])
def test_a_heartbeat_does_not_wait_for_a_connection_for_ever(timeout_s, monkeypatch):
    asked = {}
    monkeypatch.setattr(database.psycopg, "connect", lambda **params: asked.update(params))
    database.connect_sync(timeout_s)
    assert asked["connect_timeout"] == max(2, int(timeout_s)), "libpq takes no less than 2 s"
