"""Responses in the background: they go on without a viewer, and each of them is one call in the ledger."""

from contextlib import aclosing
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from llmjobs.providers.simulator.server import Simulator
from tests.helpers import aeventually
from tests.providers.simulating import KEY, answered, asked, calls_of, connected, request, sdk, simulated

MODEL = "gpt-4.1-mini"
SLOW = "[[tokens=40]] [[tokens_per_s=100]]"
VERY_SLOW = "[[tokens=400]] [[tokens_per_s=40]]"


async def begun(client: openai.AsyncOpenAI, words: str, *, leave_after: int = 4) -> tuple[str, list[Any]]:
    """The id of a response whose viewer has left, and the events that it had seen."""
    stream = await client.responses.create(model=MODEL, input=words, background=True, stream=True)
    seen: list[Any] = []
    async with aclosing(stream.__stream__()) as events:
        async for event in events:
            seen.append(event)
            if len(seen) == leave_after:
                break
    await stream.close()
    return seen[0].response.id, seen


async def ended(simulator: Simulator, outcome: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        [call] = calls_of(simulator)
        assert call["outcome"] == outcome, call
        return call

    return await aeventually(look)


async def test_it_goes_on_though_its_viewer_has_left_and_is_one_call() -> None:
    async with simulated() as (simulator, client):
        id, _ = await begun(client, SLOW)
        assert (await client.responses.retrieve(id)).status == "in_progress"
        call = await ended(simulator, "completed")
        response = await client.responses.retrieve(id)
    assert (call["input_tokens"] > 0, call["output_tokens"]) == (True, 40)
    assert response.status == "completed" and response.background
    assert response.usage is not None and response.usage.output_tokens == 40


async def test_who_comes_back_is_told_what_came_since_and_then_the_rest() -> None:
    async with simulated() as (simulator, client):
        id, seen = await begun(client, SLOW, leave_after=9)
        stream = await client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
        events = seen + [event async for event in stream]
        whole = await client.responses.retrieve(id)
        again = [event async for event in await client.responses.retrieve(id, stream=True)]
        [call] = calls_of(simulator)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join([event.delta for event in events if event.type == "response.output_text.delta"]) == whole.output_text
    assert [event.type for event in again] == [event.type for event in events], "from the start, where none is named"
    assert call["outcome"] == "completed"


async def test_it_is_announced_before_its_first_token() -> None:
    async with simulated(ttft_ms=60_000) as (_, client):
        _, seen = await begun(client, "Hello.", leave_after=2)
    assert [event.type for event in seen] == ["response.created", "response.in_progress"]


async def test_a_cancel_ends_it_for_all_and_only_once() -> None:
    async with simulated() as (simulator, client):
        id, _ = await begun(client, VERY_SLOW)
        stream = await client.responses.retrieve(id, stream=True)
        cancelled = await client.responses.cancel(id)
        rest = [event async for event in stream]
        again = await client.responses.cancel(id)
        call = await ended(simulator, "cancelled")
    assert (cancelled.status, again.status) == ("cancelled", "cancelled")
    assert rest[-1].type == "response.output_text.delta", "no event ends it"
    assert cancelled.usage is not None and 0 < cancelled.usage.output_tokens == call["output_tokens"] < 400


async def test_a_cancel_of_what_has_ended_changes_nothing() -> None:
    async with simulated() as (simulator, client):
        response = await client.responses.create(model=MODEL, input="[[tokens=3]]", background=True)
        assert response.status == "queued"
        await ended(simulator, "completed")
        assert (await client.responses.cancel(response.id)).status == "completed"


@pytest.mark.parametrize(("kept_s", "key"), [(0, KEY), (600, "sk-another")])
async def test_what_is_another_s_or_past_its_age_is_not_found(kept_s: float, key: str) -> None:
    async with simulated(responses_kept_s=kept_s) as (simulator, client), sdk(simulator, api_key=key) as other:
        id, _ = await begun(client, VERY_SLOW)
        for asking in (other.responses.retrieve(id), other.responses.cancel(id)):
            with pytest.raises(openai.NotFoundError):
                await asking
        assert calls_of(simulator)[0]["outcome"] == "running"


async def test_a_fault_of_the_line_does_not_end_it() -> None:
    async with simulated(fault="reset_midstream:1:5") as (simulator, client):
        stream = await client.responses.create(model=MODEL, input=SLOW, background=True, stream=True)
        with pytest.raises(Exception):  # noqa: B017, whatever the SDK's transport makes of it
            _ = [event async for event in stream]
        call = await ended(simulator, "completed")
    assert (call["fault"], call["output_tokens"]) == ("reset_midstream", 40)


async def test_who_came_back_is_listed_beside_the_calls() -> None:
    async with simulated() as (simulator, client):
        response = await client.responses.create(model=MODEL, input="[[tokens=3]]", background=True, stream=False)
        await client.responses.retrieve(response.id, extra_headers={"X-Client-Request-Id": "job.2"})
        await client.responses.cancel(response.id)
        _, _, page = await asked(simulator.control_url, "/_ledger", method="GET")
    assert [(r["what"], r["client_request_id"]) for r in page["resumes"]] == [("get", "job.2"), ("cancel", None)]
    assert {r["response_id"] for r in page["resumes"]} == {response.id}
    assert len(page["calls"]) == 1


async def test_a_simulator_that_stops_says_so_of_what_went_on() -> None:
    async with simulated() as (simulator, client):
        await begun(client, VERY_SLOW)
        await simulator.stop()
        assert calls_of(simulator)[0]["outcome"] == "simulator_stopped"


async def test_its_shapes_pass_the_sdks_own_types() -> None:
    async with simulated() as (simulator, client), connected(simulator.url) as (reader, writer):
        id, _ = await begun(client, VERY_SLOW)
        writer.write(request(f"/v1/responses/{id}", method="GET"))
        Response.model_validate_json((await answered(reader))[2])
        writer.write(request(f"/v1/responses/{id}/cancel"))
        Response.model_validate_json((await answered(reader))[2])


@pytest.mark.parametrize("body", [{"background": True, "store": False}, {"background": "yes"}])
async def test_what_can_not_be_done_in_the_background_is_refused(body: dict[str, Any]) -> None:
    async with simulated() as (simulator, _):
        status, _, answer = await asked(simulator.url, "/v1/responses", {"model": MODEL, "input": "hello"} | body)
    assert (status, answer["error"]["param"]) == (400, "background")
