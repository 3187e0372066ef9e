"""While an operator looks, incidents are found and told by the web process: no worker need live for that."""

import asyncio

import pytest

from llmjobs import pauses
from llmjobs.live import alarms
from llmjobs.live.threads import in_thread
from llmjobs.models import Incident
from tests.factories import make_client, make_key
from tests.helpers import aeventually
from tests.live.callers import Socket

pytestmark = pytest.mark.django_db(transaction=True)


async def test_who_looks_at_the_statistics_has_incidents_found_and_told(transactional_db):
    await in_thread(lambda: pauses.pause_claims(by="ann"))
    key = await in_thread(lambda: make_key(make_client("operations"), scopes=["operator"]))

    async def told() -> None:
        found = await in_thread(lambda: list(Incident.objects.exclude(opening_told_at=None)))
        assert [incident.kind for incident in found] == ["claims_paused"]

    async with Socket("/ws/queue/", key) as socket:
        await socket.next()
        await aeventually(told)


async def test_however_many_look_one_look_runs_at_a_time_and_not_too_often(transactional_db, monkeypatch):
    looks = []
    monkeypatch.setattr(alarms.watch, "look_here", lambda: looks.append(1))
    for _ in range(100):
        alarms.keep_watch()
        await asyncio.sleep(0)
    await in_thread(bool)
    await aeventually(lambda: _one(looks))
    alarms.keep_watch()
    assert looks == [1]


async def _one(looks: list[int]) -> None:
    assert looks == [1]
