"""Faults on demand, as the SDK sees them: by header, directive, model and for all; once, some times, or always."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from llmjobs.providers.simulator.server import Simulator
from tests.helpers import aeventually
from tests.providers.simulating import calls_of, connected, request, says, sdk, simulated

MODEL = "gpt-4.1-mini"


async def ask(
    client: AsyncOpenAI, fault: str, *, stream: bool = False, text: str = "[[tokens=20]]", **more: Any
) -> str:
    """The answer's text; the fault is ordered by header. Raises what the SDK makes of it."""
    headers = {"x-sim-fault": fault}
    body: Any = {"model": MODEL, "messages": says(text), "extra_headers": headers, **more}
    if not stream:
        return (await client.chat.completions.create(**body)).choices[0].message.content or ""
    said = ""
    async for chunk in await client.chat.completions.create(stream=True, **body):
        said += chunk.choices[0].delta.content or "" if chunk.choices else ""
    return said


STATUS_FAULTS = [
    ("context_length", openai.BadRequestError, 400, "context_length_exceeded", "invalid_request_error"),
    ("content_policy", openai.BadRequestError, 400, "content_policy_violation", "invalid_request_error"),
    ("invalid_request", openai.BadRequestError, 400, "invalid_value", "invalid_request_error"),
    ("unauthorized", openai.AuthenticationError, 401, "invalid_api_key", "invalid_request_error"),
    ("forbidden", openai.PermissionDeniedError, 403, "insufficient_permissions", "invalid_request_error"),
    ("not_found", openai.NotFoundError, 404, "model_not_found", "invalid_request_error"),
    ("rate_limit", openai.RateLimitError, 429, "rate_limit_exceeded", "requests"),
    ("slow_down", openai.RateLimitError, 429, "slow_down", "rate_limit_error"),
    ("insufficient_quota", openai.RateLimitError, 429, "insufficient_quota", "insufficient_quota"),
    ("server_error", openai.InternalServerError, 500, "server_error", "server_error"),
    ("bad_gateway", openai.InternalServerError, 502, "502", "cf_bad_gateway"),
    ("overloaded", openai.InternalServerError, 503, "server_is_overloaded", "service_unavailable_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "error", "status", "code", "kind"), STATUS_FAULTS)
async def test_an_error_status_comes_in_openais_shape(
    fault: str, error: type[openai.APIStatusError], status: int, code: str, kind: str, stream: bool
) -> None:
    async with simulated() as (simulator, client):
        with pytest.raises(error) as raised:
            await ask(client, fault, stream=stream)
        assert (raised.value.status_code, raised.value.code, raised.value.type) == (status, code, kind)
        assert isinstance(raised.value.body, dict)
        assert set(raised.value.body) == {"message", "type", "param", "code"}
        call = calls_of(simulator)[0]
        assert (call["outcome"], call["fault"], call["status"]) == (fault, fault, status)
        assert (call["input_tokens"], call["output_tokens"]) == (0, 0)
        assert raised.value.request_id == call["request_id"]


async def test_retry_after_comes_in_seconds_and_in_milliseconds() -> None:
    async with simulated() as (_, client):
        for fault in ("rate_limit", "slow_down", "overloaded"):
            with pytest.raises(openai.APIStatusError) as raised:
                await ask(client, f"{fault}::2.5")
            headers = raised.value.response.headers
            assert (headers["retry-after"], headers["retry-after-ms"]) == ("3", "2500")


async def test_without_quota_no_retry_is_advised() -> None:
    async with simulated() as (_, client):
        with pytest.raises(openai.RateLimitError) as raised:
            await ask(client, "insufficient_quota")
        assert raised.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in raised.value.response.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["refuse", "reset", "reset_midstream"])
async def test_a_broken_connection_is_a_connection_error(fault: str, stream: bool) -> None:
    async with simulated() as (simulator, client):
        with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
            await ask(client, fault, stream=stream)
        assert calls_of(simulator)[0]["outcome"] == fault
        assert await ask(client, "none")


async def test_a_reset_is_a_reset_and_a_hang_up_is_none() -> None:
    async with simulated() as (simulator, _):
        for fault in ("reset", "refuse"):
            async with connected(simulator.url) as (reader, writer):
                body = {"model": f"m@{fault}", "messages": says("hello")}
                writer.write(request("/v1/chat/completions", body))
                if fault == "reset":
                    with pytest.raises(ConnectionResetError):
                        await reader.read()
                else:
                    assert await reader.read() == b""


async def test_a_reset_midstream_comes_after_what_was_sent() -> None:
    async with simulated() as (simulator, client):
        seen = 0
        body: Any = {"model": MODEL, "messages": says("[[tokens=20]] [[fault=reset_midstream::7]]")}
        with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
            async for chunk in await client.chat.completions.create(stream=True, **body):
                seen += bool(chunk.choices[0].delta.content)
        call = calls_of(simulator)[0]
        assert seen == call["output_tokens"] == 7
        assert call["input_tokens"] > 0


async def test_a_truncated_stream_ends_cleanly_without_its_end() -> None:
    async with simulated() as (simulator, client):
        body: Any = {"model": MODEL, "messages": says("[[tokens=20]] [[fault=truncate]]")}
        chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **body)]
        assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
        assert len([chunk for chunk in chunks if chunk.choices[0].delta.content]) == 10
        responses: Any = {"model": MODEL, "input": "[[tokens=20]] [[fault=truncate]]"}
        events = [event.type async for event in await client.responses.create(stream=True, **responses)]
        assert events.count("response.output_text.delta") == 10
        assert "response.completed" not in events
        assert [call["output_tokens"] for call in calls_of(simulator)] == [10, 10]


async def test_a_truncated_body_is_a_connection_error() -> None:
    async with simulated() as (_, client):
        with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
            await ask(client, "truncate")


@pytest.mark.parametrize("stream", [False, True])
async def test_malformed_json_does_not_parse(stream: bool) -> None:
    async with simulated() as (simulator, client):
        with pytest.raises((json.JSONDecodeError, openai.APIResponseValidationError)):
            await ask(client, "malformed", stream=stream)
        assert calls_of(simulator)[0]["outcome"] == "malformed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["stall", "stall_midstream"])
async def test_a_stalled_call_ends_when_the_client_gives_up(fault: str, stream: bool) -> None:
    async with simulated() as (simulator, _), sdk(simulator, timeout_s=0.3) as client:
        with pytest.raises((openai.APITimeoutError, httpx2.TimeoutException)):
            await ask(client, fault, stream=stream)

        async def noticed() -> None:
            call = calls_of(simulator)[0]
            assert (call["outcome"], call["fault"]) == ("client_disconnected", fault)
            assert call["output_tokens"] == (10 if fault == "stall_midstream" else 0)
            assert call["status"] == 200

        await aeventually(noticed)


async def test_a_stall_may_end_by_itself() -> None:
    async with simulated() as (simulator, client):
        with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
            await ask(client, "stall::0.05", stream=True)
        assert calls_of(simulator)[0]["outcome"] == "stall"


async def test_a_slow_first_token_is_slow_and_then_all_there() -> None:
    loop = asyncio.get_running_loop()
    async with simulated() as (simulator, client):
        begun_at = loop.time()
        assert await ask(client, "slow_first_token::0.3", stream=True) == await ask(client, "none", stream=True)
        assert loop.time() - begun_at >= 0.3
        assert [call["outcome"] for call in calls_of(simulator)] == ["completed", "completed"]


async def test_an_error_inside_a_stream_is_an_error_event() -> None:
    async with simulated() as (simulator, client):
        with pytest.raises(openai.APIError) as raised:
            await ask(client, "stream_error", stream=True)
        assert (raised.value.type, raised.value.code) == ("server_error", "server_error")
        body: Any = {"model": MODEL, "input": "[[tokens=6]]", "extra_headers": {"x-sim-fault": "stream_error"}}
        events = [event async for event in await client.responses.create(stream=True, **body)]
        assert events[-1].type == "error"
        assert events[-1].code == "server_error"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert [call["output_tokens"] for call in calls_of(simulator)] == [10, 3]
        with pytest.raises(openai.InternalServerError):
            await ask(client, "stream_error")


async def test_a_proxys_page_is_no_json() -> None:
    async with simulated() as (_, client):
        with pytest.raises(openai.InternalServerError) as raised:
            await ask(client, "html")
        assert raised.value.status_code == 502
        assert raised.value.response.headers["content-type"] == "text/html"
        assert isinstance(raised.value.body, str)


async def test_an_empty_answer_has_no_body() -> None:
    async with simulated() as (_, client):
        assert await ask(client, "empty", stream=True) == ""
        with pytest.raises((json.JSONDecodeError, openai.APIResponseValidationError)):
            await ask(client, "empty")


async def test_embeddings_fail_like_the_others() -> None:
    async with simulated() as (simulator, client):
        for fault in ("reset_midstream", "truncate", "reset", "server_error"):
            with pytest.raises((openai.APIError, httpx2.TransportError)):
                await client.embeddings.create(model=f"text-embedding-3-small@{fault}", input="hello")
        assert [call["outcome"] for call in calls_of(simulator)] == [
            "reset_midstream",
            "truncate",
            "reset",
            "server_error",
        ]


async def outcomes_of(simulator: Simulator, client: AsyncOpenAI, calls: int, *, text: str, ids: list[str]) -> list[str]:
    for nth in range(calls):
        headers = {"X-Client-Request-Id": ids[nth]} if ids else {}
        try:
            await client.chat.completions.create(model=MODEL, messages=says(text), extra_headers=headers)
        except openai.APIError:
            continue
    return [call["outcome"] for call in calls_of(simulator)]


async def test_a_fault_for_some_calls_counts_those_of_the_job() -> None:
    """What retries are tested with: the attempts of one job fail, another job's do too, and then both succeed."""
    async with simulated() as (simulator, client):
        outcomes = await outcomes_of(
            simulator,
            client,
            5,
            text="[[fault=server_error:1,overloaded:1]]",
            ids=["job-a.1", "job-b.1", "job-a.2", "job-b.2", "job-a.3"],
        )
    assert outcomes == ["server_error", "server_error", "overloaded", "overloaded", "completed"]


async def test_without_a_jobs_id_the_calls_of_the_same_prompt_count() -> None:
    async with simulated() as (simulator, client):
        outcomes = await outcomes_of(simulator, client, 3, text="[[fault=server_error:2]]", ids=[])
    assert outcomes == ["server_error", "server_error", "completed"]


async def test_a_fault_for_all_meets_all_but_those_exempted() -> None:
    async with simulated(fault="server_error") as (simulator, client):
        for fault in ("none", "reset"):
            try:
                await ask(client, fault)
            except openai.APIConnectionError:
                continue
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model=MODEL, messages=says("hello"))
        assert [call["outcome"] for call in calls_of(simulator)] == ["completed", "reset", "server_error"]


async def drawn(**behaviour: Any) -> list[str]:
    async with simulated(**behaviour) as (simulator, client):
        return await outcomes_of(simulator, client, 200, text="[[tokens=1]]", ids=[])


async def test_a_share_of_the_calls_fails_and_the_dice_can_be_thrown_again() -> None:
    outcomes = await drawn(faults={"server_error": 0.3, "rate_limit": 0.2}, seed=7)
    assert 40 <= outcomes.count("server_error") <= 80
    assert 20 <= outcomes.count("rate_limit") <= 60
    assert outcomes.count("completed") == 200 - outcomes.count("server_error") - outcomes.count("rate_limit")
    assert outcomes == await drawn(faults={"server_error": 0.3, "rate_limit": 0.2}, seed=7)
    assert outcomes != await drawn(faults={"server_error": 0.3, "rate_limit": 0.2}, seed=8)


async def test_a_fail_rate_alone_is_a_mix_of_faults() -> None:
    outcomes = await drawn(fail_rate=0.5)
    assert 70 <= outcomes.count("completed") <= 130
    assert len(set(outcomes)) >= 4


async def test_a_fail_rate_with_a_fault_is_that_fault() -> None:
    outcomes = await drawn(fail_rate=0.5, fault="overloaded")
    assert set(outcomes) == {"completed", "overloaded"}


async def test_an_unknown_fault_is_refused_by_name() -> None:
    async with simulated() as (_, client):
        with pytest.raises(openai.BadRequestError) as raised:
            await ask(client, "typo")
        assert raised.value.param == "x-sim-fault"
        assert "reset_midstream" in raised.value.message
