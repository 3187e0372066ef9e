"""Django's ORM for viewers: few connections, and none that is left open."""

import asyncio
import threading

import pytest
from django.db import connection

from llmjobs.live.reading import connect
from llmjobs.live.threads import OrmThread, in_thread
from tests.helpers import aeventually

pytestmark = pytest.mark.django_db(transaction=True)


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]


async def until_closed(*pids: int) -> None:
    asking = await connect()

    async def are_gone() -> None:
        query = "select count(*) from pg_stat_activity where pid = any(%s)"
        assert await (await asking.execute(query, (list(pids),))).fetchone() == (0,)

    await aeventually(are_gone)
    await asking.close()


async def test_many_calls_at_once_share_a_connection_which_ends_with_the_last():
    pids = set(await asyncio.gather(*(in_thread(backend_pid) for _ in range(50))))
    assert len(pids) == 1
    await until_closed(*pids)


async def test_a_connection_is_not_trusted_after_a_failure():
    pids = []

    def fail() -> None:
        pids.append(backend_pid())
        raise RuntimeError("no")

    failed, after = await asyncio.gather(in_thread(fail), in_thread(backend_pid), return_exceptions=True)
    assert isinstance(failed, RuntimeError) and isinstance(after, int)
    assert after != pids[0]
    await until_closed(after, *pids)


async def test_a_caller_who_gives_up_leaves_no_connection_open():
    """The one that runs leaves it open for the one that waits; that one never comes."""
    may_end = threading.Event()

    def held() -> int:
        may_end.wait(10)
        return backend_pid()

    thread = OrmThread("test")

    async def both_have_asked() -> None:
        assert thread._asked == 2

    running = asyncio.create_task(thread.run(held))
    waiting = asyncio.create_task(thread.run(backend_pid))
    await aeventually(both_have_asked)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    may_end.set()
    await until_closed(await running)
