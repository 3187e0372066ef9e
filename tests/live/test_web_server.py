"""Behind a real daphne: viewers sit through its death, cost few connections, and can't fill its memory."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.typing import Subprotocol

from llmjobs.live.reading import connect
from llmjobs.live.threads import in_thread
from llmjobs.models import Job
from llmjobs.states import SEQ_EPOCH
from tests.helpers import aeventually
from tests.live.speaker import log_of, speaking
from tests.live_process import WebServer, web_server

pytestmark = pytest.mark.django_db(transaction=True)

Seen = list[tuple[int, str]]
Road = Callable[[WebServer, Job, str, int], AsyncGenerator[tuple[int, str], None]]


@pytest.fixture
def server(transactional_db):
    with web_server(LLMJOBS_VIEWER_BUFFER_MAX="200", LLMJOBS_VIEWERS_PER_CLIENT_MAX="500") as running:
        yield running


async def stream_of(server: WebServer, job: Job, key: str, after: int) -> AsyncGenerator[tuple[int, str], None]:
    """One connection of an EventSource, until it ends or breaks."""
    headers = {"Authorization": f"Bearer {key}", "Last-Event-ID": str(after)}
    url = f"{server.url}/api/jobs/{job.public_id}/events"
    async with (
        httpx2.AsyncClient(timeout=60, trust_env=False) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        seq = 0
        async for line in response.aiter_lines():
            if line.startswith("id: "):
                seq = int(line[4:])
            if line.startswith("event: "):
                yield seq, line[7:]


async def frames_of(server: WebServer, job: Job, key: str, after: int) -> AsyncGenerator[tuple[int, str], None]:
    """One WebSocket, until it closes."""
    url = f"{server.ws_url}/ws/jobs/{job.public_id}/?after={after}"
    offered = [Subprotocol("llmjobs"), Subprotocol(key)]
    async with connect_websocket(url, subprotocols=offered, proxy=None) as opened:
        async for text in opened:
            frame = json.loads(text)
            yield frame["seq"], frame["type"]


async def watch(server: WebServer, job: Job, key: str, seen: Seen, road: Road) -> None:
    """As a browser does it: connects again after the last event it saw, until it saw the end."""
    while not seen or seen[-1][1] != "done":
        try:
            async for entry in road(server, job, key, seen[-1][0] if seen else 0):
                seen.append(entry)
        except (httpx2.TransportError, ConnectionClosed, InvalidMessage, OSError):
            await aeventually(lambda: accepts(server))


async def accepts(server: WebServer) -> None:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError as error:
        raise AssertionError("the server is down") from error
    writer.close()


async def until_seen(viewers: list[Seen], count: int) -> None:
    async def all_have() -> None:
        assert all(len(seen) >= count for seen in viewers), [len(seen) for seen in viewers]

    await aeventually(all_have, within_s=30)


async def test_a_killed_web_server_loses_nothing_and_doubles_nothing(server, job, key):
    """SIGKILL twice in the middle of a stream, which goes on meanwhile; what was seen is the log, once, in order."""
    roads = [stream_of, frames_of] * 3
    viewers: list[Seen] = [[] for _ in roads]
    async with speaking(job) as [speaker]:
        watching = [
            asyncio.create_task(watch(server, job, key, seen, road)) for seen, road in zip(viewers, roads, strict=True)
        ]
        for _ in range(2):
            before = max(map(len, viewers))
            writing = asyncio.create_task(speaker.talk(400))
            await until_seen(viewers, before + 20)
            await asyncio.to_thread(server.kill)
            await writing
            await asyncio.to_thread(server.start)
        await speaker.talk(50)
        await speaker.end()
        async with asyncio.timeout(60):
            await asyncio.gather(*watching)
    log = await in_thread(log_of, job)
    assert len(log) == 2 + 850 + 1
    assert all(seen == log for seen in viewers)


def status_of(server: WebServer, name: str) -> int:
    """What Linux says of the process: a number of threads, or a size in kB."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


async def connections(server: WebServer) -> int:
    """Of the database, but for the test's own two."""
    connection = await connect()
    try:
        query = """
            select count(*) from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend'
        """
        ((count,),) = await (await connection.execute(query)).fetchall()
    finally:
        await connection.close()
    return int(count)


async def test_many_viewers_cost_no_more_connections_than_one(server, job, key):
    """And no thread each: both would grow with every browser that is left open."""
    async with speaking(job) as [speaker]:
        before = await connections(server)
        viewers: list[Seen] = [[] for _ in range(100)]
        roads = [stream_of, frames_of] * 50
        watching = [asyncio.create_task(watch(server, job, key, *one)) for one in zip(viewers, roads, strict=True)]
        most = 0
        while not all(viewers):
            most = max(most, await connections(server))
        assert most - before <= 8

        async def is_settled() -> None:
            assert await connections(server) - before <= 8  # the ear's, the hub's, the history's, the pool's
            assert status_of(server, "Threads") <= 12

        await aeventually(is_settled)
        await speaker.end()
        await asyncio.gather(*watching)


@pytest.mark.parametrize("road", ["sse", "websocket"])
async def test_a_viewer_who_does_not_read_is_dropped_and_the_others_are_served(server, job, key, road):
    """daphne itself would keep everything for it in memory."""
    viewers: list[Seen] = [[]]
    async with speaking(job) as [speaker]:
        sleeper = socket.create_connection(("127.0.0.1", server.port))
        sleeper.sendall(opening(road, job, key))
        watching = asyncio.create_task(watch(server, job, key, viewers[0], stream_of))
        await until_seen(viewers, 2)
        before = status_of(server, "VmRSS")
        for _ in range(300):
            await speaker.say("x" * 100_000)
        await until_seen(viewers, 302)
        grown = status_of(server, "VmRSS") - before

        async def is_dropped() -> None:
            said = server.output()
            assert f"road={road}" in said and "too slow" in said

        await asyncio.to_thread(drain, sleeper)
        await aeventually(is_dropped)
        await speaker.end()
        await watching
    assert viewers[0] == await in_thread(log_of, job)
    assert grown < 25_000  # less than what was said


def opening(road: str, job: Job, key: str) -> bytes:
    if road == "sse":
        lines = [f"GET /api/jobs/{job.public_id}/events HTTP/1.1", "Connection: close", f"Authorization: Bearer {key}"]
    else:
        lines = [
            f"GET /ws/jobs/{job.public_id}/ HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==",
            f"Sec-WebSocket-Protocol: llmjobs, {key}",
        ]  # fmt: skip
    return "\r\n".join([*lines, "Host: 127.0.0.1", "", ""]).encode()


def drain(sleeper: socket.socket) -> None:
    """Reads at last, to the end of the connection, without a word of its own."""
    sleeper.settimeout(30)
    with sleeper, suppress(ConnectionResetError):
        while sleeper.recv(1 << 20):
            pass


async def test_a_viewer_who_goes_away_gives_its_place_back(job, key, transactional_db):
    with web_server(LLMJOBS_VIEWERS_PER_CLIENT_MAX="1") as server:
        for road in (stream_of, frames_of, stream_of, frames_of):

            async def is_let_in(road=road) -> None:
                seen = [entry async for entry in first_of(road(server, job, key, 0))]
                assert seen == [(SEQ_EPOCH, "status")]

            await aeventually(is_let_in)


async def first_of(entries: AsyncGenerator[tuple[int, str], None]) -> AsyncGenerator[tuple[int, str], None]:
    try:
        async for entry in entries:
            yield entry
            return
    except (AssertionError, ConnectionClosed):
        return
    finally:
        await entries.aclose()


async def test_a_server_that_is_told_to_stop_does_not_wait_for_viewers(server, job, key):
    viewers: list[Seen] = [[], []]
    watching = [
        asyncio.create_task(watch(server, job, key, seen, road))
        for seen, road in zip(viewers, (stream_of, frames_of), strict=True)
    ]
    await until_seen(viewers, 2)
    await asyncio.to_thread(server.stop)  # kills it after 15 s, which its status would tell
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    assert server.process.returncode == 0
