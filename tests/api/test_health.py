"""/healthz and /readyz: what they ask, whom, how often; and what they tell strangers."""

import asyncio
import threading

import psycopg
import pytest
from django.core.asgi import get_asgi_application
from django.db import connection
from django.test import AsyncClient
from django.test import Client as HttpClient

from llmjobs.monitoring import health
from llmjobs.monitoring.keeping import Kept

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def unasked():
    health._ready.forget()
    yield
    health._ready.forget()


@pytest.fixture
def away(monkeypatch):
    """The database's address leads nowhere; its words would name it."""
    real = health.dsn()
    monkeypatch.setattr(health, "dsn", lambda: real | {"host": "/nowhere/secret", "port": 1})


def ask(path: str, **headers: str):
    answer = HttpClient(headers=headers).get(path)
    assert answer["Cache-Control"] == "no-store"
    return answer.status_code, answer.json()


def test_a_process_lives_whatever_the_database_does(away, django_assert_num_queries):
    with django_assert_num_queries(0):
        status, body = ask("/healthz")
    assert (status, body["status"]) == (200, "ok")


def test_it_is_ready_when_the_database_has_all_that_this_code_needs():
    assert ask("/readyz") == (200, {"status": "ready", "checks": {"database": "ok", "migrations": "ok"}})


def test_it_is_not_ready_before_its_migrations():
    with connection.cursor() as cursor:
        cursor.execute(
            "delete from django_migrations where app = 'llmjobs' and name = '0001_initial' returning applied"
        )
        [applied] = cursor.fetchone()
    try:
        status, body = ask("/readyz")
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "insert into django_migrations (app, name, applied) values ('llmjobs', '0001_initial', %s)", [applied]
            )
    assert (status, body["status"]) == (503, "not ready")
    assert body["checks"] == {"database": "ok", "migrations": "1 to apply: llmjobs.0001_initial"}


def test_it_is_not_ready_while_the_database_is_away_and_says_no_more_than_that(away, caplog):
    answer = HttpClient().get("/readyz")
    assert answer.status_code == 503
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "each would be a mail"
    assert answer.json()["checks"] == {"database": "unreachable", "migrations": "unknown"}
    assert b"secret" not in answer.content


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_come_by_any_name_and_without_https(settings, path):
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["llmjobs.example.com"], True
    assert ask(path, host="10.1.2.3:8000")[0] == 200
    assert HttpClient().post(path).status_code == 405
    assert HttpClient(headers={"host": "10.1.2.3"}).get("/login/").status_code in (301, 400)


def test_a_flood_of_questions_is_one_look(monkeypatch):
    monkeypatch.setattr(health._ready, "_for_s", 60)
    looks = []
    real = psycopg.connect
    monkeypatch.setattr(psycopg, "connect", lambda **params: looks.append(1) or real(**params))
    for _ in range(50):
        assert ask("/readyz")[0] == 200
    assert len(looks) == 1


async def test_under_asgi_the_answers_are_the_same():
    get_asgi_application()
    answers = await asyncio.gather(*(AsyncClient().get(path) for path in ("/healthz", "/readyz", "/readyz")))
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_who_asks_while_another_looks_gets_the_answer_of_before():
    may_end, begun = threading.Event(), threading.Event()
    answers = iter(["first", "second"])

    def look() -> str:
        answer = next(answers)
        if answer == "second":
            begun.set()
            assert may_end.wait(10)
        return answer

    kept = Kept(look, for_s=0)
    assert kept.get() == "first"
    slow = threading.Thread(target=kept.get)
    slow.start()
    assert begun.wait(10)
    assert kept.get() == "first"  # who waited for the other would see it give up
    may_end.set()
    slow.join(10)
    assert kept._kept is not None and kept._kept[0] == "second"
