"""The ledger over HTTP: every call that came, what was sent of it, and when its client left."""

import asyncio
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from llmjobs.providers.simulator.server import Simulator
from tests.helpers import aeventually
from tests.providers.simulating import KEY, asked, calls_of, connected, request, says, sdk, simulated

MODEL = "gpt-4.1-mini"


async def test_a_call_is_listed_with_all_that_a_checker_joins_on() -> None:
    async with simulated() as (simulator, client):
        before_at = time.time()
        headers = {"X-Client-Request-Id": "019a.3"}
        body: Any = {"model": MODEL, "messages": says("hello [[tokens=7]]"), "extra_headers": headers}
        raw = await client.chat.completions.with_raw_response.create(**body)
        _, _, page = await asked(simulator.control_url, "/_ledger", method="GET")
        (call,) = page["calls"]
        assert call["client_request_id"] == "019a.3"
        assert call["request_id"] == raw.headers["x-request-id"]
        assert (call["endpoint"], call["model"], call["stream"]) == ("/v1/chat/completions", MODEL, False)
        assert (call["outcome"], call["status"], call["fault"]) == ("completed", 200, None)
        assert (call["input_tokens"], call["output_tokens"]) == (5, 7)
        assert before_at - 1 < call["at"] == call["started_at"] <= call["ended_at"] < time.time() + 1


async def test_the_key_is_told_apart_but_not_told() -> None:
    async with simulated() as (simulator, client), sdk(simulator, api_key="sk-other") as other:
        for one in (client, client, other):
            await one.chat.completions.create(model=MODEL, messages=says("hello"))
        keys = [call["key"] for call in calls_of(simulator)]
        assert keys[0] == keys[1] != keys[2]
        assert KEY not in str(calls_of(simulator))


async def test_a_bad_request_is_listed_too() -> None:
    async with simulated() as (simulator, _):
        status, _, answer = await asked(simulator.url, "/v1/chat/completions", b"{")
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert [call["outcome"] for call in calls_of(simulator)] == ["invalid_request"]


async def test_a_call_without_a_key_is_unauthorized() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(b"POST /v1/embeddings HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        assert b" 401 " in await reader.readline()
        assert [(call["outcome"], call["key"]) for call in calls_of(simulator)] == [("unauthorized", "")]


async def test_a_call_that_runs_is_listed_as_running() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (_, writer):
        writer.write(request("/v1/chat/completions", {"model": "m@stall", "messages": says("hello")}))

        async def running() -> None:
            assert [(call["outcome"], call["ended_at"]) for call in calls_of(simulator)] == [("running", None)]

        await aeventually(running)


async def test_a_client_that_leaves_midstream_is_noticed_at_once_with_what_it_got() -> None:
    async with simulated(tokens_per_s=50) as (simulator, client):
        stream = await client.chat.completions.create(model=MODEL, messages=says("[[tokens=500]]"), stream=True)
        seen = 0
        async for chunk in stream:
            seen += bool(chunk.choices[0].delta.content)
            if seen == 5:
                break
        await stream.close()
        left_at = time.time()

        async def noticed() -> dict[str, Any]:
            (call,) = calls_of(simulator)
            assert call["outcome"] == "client_disconnected"
            return call

        call = await aeventually(noticed)
        assert 5 <= call["output_tokens"] < 100
        assert call["input_tokens"] > 0
        assert abs(call["ended_at"] - left_at) < 1  # milliseconds, if nobody else wants the core
        assert (call["status"], call["fault"]) == (200, None)


async def test_a_client_that_leaves_before_the_first_byte_got_nothing() -> None:
    async with simulated(ttft_ms=60_000) as (simulator, _), sdk(simulator, timeout_s=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model=MODEL, messages=says("hello"))

        async def noticed() -> None:
            (call,) = calls_of(simulator)
            assert (call["outcome"], call["status"], call["output_tokens"]) == ("client_disconnected", 0, 0)

        await aeventually(noticed)


async def test_a_client_that_reads_slowly_is_waited_for() -> None:
    """What is counted as sent has left the simulator, whatever pace was asked for."""
    async with simulated(tokens_per_s=1_000_000) as (simulator, _), connected(simulator.url) as (_, writer):
        body = {"model": MODEL, "messages": says("[[tokens=100000]]"), "stream": True}
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("/v1/chat/completions", body))

        async def sending() -> None:
            assert calls_of(simulator)

        await aeventually(sending)
        writer.transport.abort()

        async def noticed() -> None:
            (call,) = calls_of(simulator)
            assert call["outcome"] == "client_disconnected"
            assert call["output_tokens"] < 100_000

        await aeventually(noticed)


async def test_the_ledger_is_read_in_pages() -> None:
    async with simulated() as (simulator, client):
        for _ in range(4):
            await client.chat.completions.create(model=MODEL, messages=says("[[tokens=1]]"))
        _, _, page = await asked(simulator.url, "/_ledger?after=1&limit=2", method="GET")
        assert [call["n"] for call in page["calls"]] == [2, 3]
        assert (page["total"], page["dropped"]) == (4, 0)
        status, _, answer = await asked(simulator.url, "/_ledger?after=x", method="GET")
        assert (status, answer["error"]["param"]) == (400, "after")


async def test_a_stopped_simulator_ends_what_still_runs(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with Simulator(ledger_path=path) as simulator, connected(simulator.url) as (_, writer):
        writer.write(request("/v1/chat/completions", {"model": "m@stall", "messages": says("hello")}))

        async def running() -> None:
            assert calls_of(simulator)

        await aeventually(running)
        await simulator.stop()
    async with Simulator(ledger_path=path) as again:
        assert [call["outcome"] for call in calls_of(again)] == ["simulator_stopped"]


async def test_many_calls_at_once_are_each_listed_once() -> None:
    async with simulated(ttft_ms=5, tokens_per_s=2_000) as (simulator, client):
        await asyncio.gather(
            *(
                client.chat.completions.create(
                    model=MODEL,
                    messages=says(f"call {nth} [[tokens=10]]"),
                    extra_headers={"X-Client-Request-Id": f"job-{nth}.1"},
                )
                for nth in range(200)
            )
        )
        calls = calls_of(simulator)
        assert {call["client_request_id"] for call in calls} == {f"job-{nth}.1" for nth in range(200)}
        assert len(calls) == len({call["request_id"] for call in calls}) == 200
