"""`/ws/queue/`: the live statistics, for operators alone."""

import asyncio

import pytest

from llmjobs import stats
from llmjobs.live import statistics
from llmjobs.live.threads import in_thread
from llmjobs.states import State
from tests.factories import make_client, make_job, make_key
from tests.live.callers import ORIGIN, Socket, closed_at, session_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def operator(transactional_db) -> str:
    return make_key(make_client("operations"), scopes=["operator"])


async def test_an_operator_sees_the_statistics_and_their_changes(acme, operator, monkeypatch):
    monkeypatch.setattr(statistics, "EVERY_S", 0.05)
    async with Socket("/ws/queue/", operator) as socket:
        [first] = await socket.next()
        assert first.keys() == {*(await in_thread(stats.queue_stats)), "tiers", "incidents"}
        assert {tier["name"] for tier in first["tiers"]} >= {"free", "pro"}
        await in_thread(lambda: make_job(State.RUNNING, client=acme))
        [second] = await socket.next()
        assert (first["running"], second["running"]) == (0, 1)


async def test_a_member_of_the_staff_is_an_operator(transactional_db):
    cookie = await in_thread(lambda: session_of(is_operator=True))
    async with Socket("/ws/queue/", origin=ORIGIN, cookie=cookie) as socket:
        assert "running" in (await socket.next())[0]


async def test_who_may_see_jobs_but_no_prompt_sees_the_numbers(transactional_db):
    cookie = await in_thread(lambda: session_of(is_operator=True, permissions=("view_job",)))
    async with Socket("/ws/queue/", origin=ORIGIN, cookie=cookie) as socket:
        assert "running" in (await socket.next())[0]


async def test_others_are_told_that_there_is_nothing(acme, key):
    assert await closed_at("/ws/queue/", key) == 4404
    assert await closed_at("/ws/queue/", "llmj_wrong") == 4404
    cookie = await in_thread(lambda: session_of(acme))
    assert await closed_at("/ws/queue/", origin=ORIGIN, cookie=cookie) == 4404


async def test_the_statistics_are_computed_once_for_all_who_look(operator, monkeypatch):
    asked = []

    def counted():
        asked.append(1)
        return {"running": 0}

    monkeypatch.setattr(statistics, "queue_stats", counted)
    monkeypatch.setattr(statistics, "EVERY_S", 3600)
    sockets = [Socket("/ws/queue/", operator) for _ in range(10)]
    await asyncio.gather(*(socket.__aenter__() for socket in sockets))
    assert [(await socket.next())[0]["running"] for socket in sockets] == [0] * 10
    assert len(asked) == 1
    for socket in sockets:
        await socket.__aexit__(None, None, None)
