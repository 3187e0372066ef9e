"""The control routes: what is changed holds at once; what is wrong is named and changes nothing."""

import asyncio
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from llmjobs.providers.simulator.server import Simulator
from tests.helpers import aeventually
from tests.providers.simulating import asked, calls_of, connected, request, says, sdk, simulated

MODEL = "gpt-4.1-mini"


async def ask(client: AsyncOpenAI) -> None:
    await client.chat.completions.create(model=MODEL, messages=says("[[tokens=1]]"))


async def test_a_change_holds_when_it_is_answered() -> None:
    async with simulated() as (simulator, client):
        await ask(client)
        _, _, state = await asked(simulator.control_url, "/_control", {"fault": "server_error", "rpm": 60})
        assert (state["fault"], state["rpm"], state["window"]) == ("server_error", 60, "sliding")
        assert (state["url"], state["control_url"]) == (simulator.url, simulator.control_url)
        assert (await asked(simulator.url, "/_control", method="GET"))[2] == state
        with pytest.raises(openai.InternalServerError):
            await ask(client)


async def test_a_reset_brings_back_the_beginning_and_an_empty_ledger() -> None:
    async with simulated(rpm=1) as (simulator, client):
        await ask(client)
        await asked(simulator.url, "/_control", {"rpm": 5, "fault": "stall"})
        _, _, state = await asked(simulator.url, "/_control", {"reset": True, "reset_ledger": True})
        assert (state["rpm"], state["fault"]) == (1, None)
        assert calls_of(simulator) == []
        await ask(client)


@pytest.mark.parametrize("body", [b"{", b"[]", {"rpm": -1}, {"typo": 1}])
async def test_a_wrong_change_is_a_400_that_names_the_field(body: Any) -> None:
    async with simulated(rpm=60) as (simulator, _):
        status, _, answer = await asked(simulator.url, "/_control", body)
        assert status == 400
        field = next(iter(body)) if isinstance(body, dict) else "body"
        assert answer["error"]["param"] == field
        assert answer["error"]["message"].startswith(f"{field}: expected ")
        assert simulator.state()["rpm"] == 60


async def refused(simulator: Simulator) -> bool:
    try:
        async with connected(simulator.url):
            return False
    except ConnectionRefusedError:
        return True


async def test_a_provider_that_refuses_is_refused_by_the_kernel_until_it_is_told_to_listen() -> None:
    async with simulated() as (simulator, client):
        await ask(client)
        status, _, _ = await asked(simulator.url, "/_control", {"refuse": True})
        assert status == 200
        for _ in range(50):
            assert await refused(simulator)
        with pytest.raises(openai.APIConnectionError):
            await ask(client)
        url = simulator.url
        await asked(simulator.control_url, "/_control", {"refuse": False})
        await ask(client)
        assert simulator.url == url
        assert len(calls_of(simulator)) == 2


async def test_kept_connections_do_not_outlive_the_refusal() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(request("/v1/models", method="GET"))
        await reader.readuntil(b"\r\n\r\n")
        simulator.change({"refuse": True})
        await asyncio.wait_for(reader.read(), 5)
        assert reader.at_eof()


async def test_a_call_that_runs_is_answered_before_its_connection_goes() -> None:
    async with simulated(ttft_ms=200) as (simulator, client):
        call = asyncio.create_task(ask(client))

        async def running() -> None:
            assert calls_of(simulator)

        await aeventually(running)
        simulator.change({"refuse": True})
        await call
        with pytest.raises(openai.APIConnectionError):
            await ask(client)


async def test_a_refusal_may_end_by_itself() -> None:
    async with simulated() as (simulator, client):
        begun_at = time.monotonic()
        simulator.change({"refuse": 0.2})
        assert await refused(simulator)

        async def listening() -> None:
            assert not await refused(simulator)

        await aeventually(listening)
        assert time.monotonic() - begun_at >= 0.2
        assert simulator.state()["refuse"] is False
        await ask(client)


async def test_another_change_does_not_prolong_a_refusal() -> None:
    async with simulated() as (simulator, _):
        begun_at = time.monotonic()
        simulator.change({"refuse": 0.5})

        async def listening() -> None:
            simulator.change({"ttft_ms": 1})
            assert not await refused(simulator)

        await aeventually(listening, within_s=5)
        assert time.monotonic() - begun_at >= 0.5


async def test_it_can_begin_by_refusing() -> None:
    async with simulated(refuse=True) as (simulator, _):
        assert await refused(simulator)
        assert (await asked(simulator.control_url, "/_control", method="GET"))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104
def test_a_host_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"^host: expected a loopback address"):
        Simulator(host=host)


async def test_it_listens_on_ipv6_too() -> None:
    async with Simulator(host="::1") as simulator, sdk(simulator) as client:
        assert simulator.url.startswith("http://[::1]:")
        await ask(client)


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with simulated() as (simulator, _):
        port = int(simulator.url.split(":")[-1].removesuffix("/v1"))
        with pytest.raises(OSError, match="in use"):
            await Simulator(port=port).start()
