"""Limits over HTTP: what is too much is answered with 429 and OpenAI's headers, for each key and model alone."""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from llmjobs.providers.simulator.limits import WINDOWS
from tests.providers.simulating import calls_of, says, sdk, simulated

MODEL = "gpt-4.1-mini"


async def headers_of(client: AsyncOpenAI, text: str = "hi [[tokens=8]]", **more: Any) -> dict[str, str]:
    body: Any = {"model": MODEL, "messages": says(text), **more}
    return dict((await client.chat.completions.with_raw_response.create(**body)).headers)


@pytest.mark.parametrize("window", WINDOWS)
async def test_a_call_beyond_the_limit_is_a_429_that_says_when_to_come_again(window: str) -> None:
    async with simulated(rpm=1, window=window) as (simulator, client):
        with pytest.raises(openai.RateLimitError) as raised:
            for _ in range(10):  # the calls may fall into two windows, never into ten
                await headers_of(client)
        error, headers = raised.value, raised.value.response.headers
        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
        assert "Limit 1, Used 1, Requested 1" in error.message
        assert 1 <= int(headers["retry-after"]) <= 60
        assert int(headers["retry-after"]) - 1 < int(headers["retry-after-ms"]) / 1000 <= int(headers["retry-after"])
        assert headers["x-ratelimit-remaining-requests"] == "0"
        last = calls_of(simulator)[-1]
        assert (last["outcome"], last["fault"], last["status"]) == ("rate_limit", None, 429)
        assert (last["input_tokens"], last["output_tokens"]) == (0, 0)


async def test_every_answer_says_what_is_left() -> None:
    async with simulated(rpm=10, tpm=1_000) as (_, client):
        first = await headers_of(client)
        assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-limit-tokens"]) == ("10", "1000")
        assert first["x-ratelimit-remaining-requests"] == "9"
        assert first["x-ratelimit-remaining-tokens"] == str(1_000 - 4 - 8)
        assert first["x-ratelimit-reset-requests"] == "1m0s"
        for fault in ("server_error", "invalid_request", "overloaded"):
            with pytest.raises(openai.APIStatusError) as raised:
                await headers_of(client, extra_headers={"x-sim-fault": fault})
        assert raised.value.response.headers["x-ratelimit-remaining-requests"] == "6"
        wrong: Any = 0
        with pytest.raises(openai.BadRequestError) as bad:
            await headers_of(client, n=wrong)
        assert bad.value.response.headers["x-ratelimit-remaining-requests"] == "5"
        with pytest.raises(openai.BadRequestError) as bad:
            await headers_of(client, logprobs=True, top_logprobs=99)
        assert bad.value.response.headers["x-ratelimit-remaining-requests"] == "4"


async def test_failed_and_refused_calls_count_too() -> None:
    async with simulated(rpm=3) as (simulator, client):
        for fault in ("server_error", "reset", "none", "none", "none"):
            try:
                await headers_of(client, extra_headers={"x-sim-fault": fault})
            except openai.APIError:
                continue
        outcomes = [call["outcome"] for call in calls_of(simulator)]
        assert outcomes == ["server_error", "reset", "completed", "rate_limit", "rate_limit"]


async def test_a_call_that_is_kept_out_counts_in_no_limit() -> None:
    async with simulated(rpm=1) as (_, client):
        for fault in ("unauthorized", "forbidden"):
            with pytest.raises(openai.APIStatusError):
                await headers_of(client, extra_headers={"x-sim-fault": fault})
        assert (await headers_of(client))["x-ratelimit-remaining-requests"] == "0"


async def test_another_key_and_another_model_have_limits_of_their_own() -> None:
    async with simulated(rpm=1) as (simulator, client), sdk(simulator, api_key="sk-other") as other:
        await headers_of(client)
        await headers_of(client, model="gpt-4.1")
        await headers_of(other)
        with pytest.raises(openai.RateLimitError):
            await headers_of(client)


async def test_tokens_are_counted_as_they_will_be_used() -> None:
    async with simulated(tpm=100) as (_, client):
        await headers_of(client, "[[tokens=80]]", max_tokens=100_000)
        with pytest.raises(openai.RateLimitError) as raised:
            await headers_of(client, "[[tokens=80]]")
        assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "tokens")
        assert "Limit 100, Used 84, Requested 84" in raised.value.message


async def test_tokens_can_be_counted_as_the_maximum_that_was_asked_for() -> None:
    async with simulated(tpm=100, count_max_tokens=True) as (simulator, client):
        left = (await headers_of(client, "[[tokens=2]]", max_tokens=90))["x-ratelimit-remaining-tokens"]
        assert left == str(100 - 3 - 90)
        assert calls_of(simulator)[0]["output_tokens"] == 2


async def test_what_never_fits_is_not_worth_a_retry() -> None:
    async with simulated(tpm=100) as (_, client):
        with pytest.raises(openai.RateLimitError, match="Request too large") as raised:
            await headers_of(client, "[[tokens=101]]")
        assert raised.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in raised.value.response.headers


async def test_without_limits_nothing_is_said_of_them() -> None:
    async with simulated() as (_, client):
        assert not [name for name in await headers_of(client) if name.startswith("x-ratelimit")]


async def test_a_new_limit_holds_at_once_and_other_changes_leave_accounts_alone() -> None:
    async with simulated(rpm=1) as (simulator, client):
        await headers_of(client)
        simulator.change({"ttft_ms": 1})
        with pytest.raises(openai.RateLimitError):
            await headers_of(client)
        simulator.change({"rpm": 2})
        assert (await headers_of(client))["x-ratelimit-remaining-requests"] == "1"
