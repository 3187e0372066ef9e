"""Responses as the SDK reads them: typed events in sequence, the last of which carries the whole."""

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.providers.simulating import answered, connected, request, simulated

MODEL = "gpt-4.1-mini"
TOOLS: Any = [
    {
        "type": "function",
        "name": name,
        "strict": None,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    for name in ("weather", "news")
]
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


async def test_the_deltas_together_are_the_response() -> None:
    async with simulated() as (_, client):
        response = await client.responses.create(model=MODEL, input="hello [[tokens=200]]")
        stream = await client.responses.create(model=MODEL, input="hello [[tokens=200]]", stream=True)
        events = [event async for event in stream]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == response.output_text
    assert response.status == "completed"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 200)
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage == response.usage
    assert last.response.output_text == text


async def test_the_events_come_in_openais_order_and_are_numbered() -> None:
    async with simulated() as (_, client):
        stream = await client.responses.create(model=MODEL, input="[[tokens=2]]", stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_the_sdks_own_accumulator_agrees() -> None:
    """`responses.stream` keeps a snapshot and asserts that the events fit it."""
    async with simulated() as (_, client):
        async with client.responses.stream(model=MODEL, input="[[tokens=30]]") as stream:
            final = await stream.get_final_response()
        plain = await client.responses.create(model=MODEL, input="[[tokens=30]]")
        async with client.responses.stream(model=MODEL, input="[[tool_calls=2]]", tools=TOOLS) as stream:
            with_tools = await stream.get_final_response()
    assert final.output_text == plain.output_text
    assert [item.name for item in with_tools.output if item.type == "function_call"] == ["weather", "news"]


async def test_the_maximum_leaves_a_response_incomplete() -> None:
    async with simulated() as (_, client):
        body: Any = {"model": MODEL, "input": "[[tokens=50]]", "max_output_tokens": 9}
        response = await client.responses.create(**body)
        events = [event async for event in await client.responses.create(stream=True, **body)]
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 9
    assert events[-1].type == "response.incomplete"


async def test_tools_are_called_on_demand() -> None:
    async with simulated() as (_, client):
        body: Any = {"model": MODEL, "input": "[[tool_calls=2]]", "tools": TOOLS}
        response = await client.responses.create(**body)
        events = [event async for event in await client.responses.create(stream=True, **body)]
    calls = [item for item in response.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["weather", "news"]
    assert all(set(json.loads(call.arguments)) == {"city"} for call in calls)
    streamed: dict[int, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            streamed[event.output_index] = streamed.get(event.output_index, "") + event.delta
    assert [streamed[index] for index in sorted(streamed)] == [call.arguments for call in calls]


async def test_a_refusal_comes_on_demand() -> None:
    async with simulated() as (_, client):
        response = await client.responses.create(model=MODEL, input="[[refusal]]")
        stream = await client.responses.create(model=MODEL, input="[[refusal]]", stream=True)
        deltas = [event.delta async for event in stream if event.type == "response.refusal.delta"]
    item = response.output[0]
    assert item.type == "message"
    assert item.content[0].type == "refusal"
    assert item.content[0].refusal == "".join(deltas)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "[[tokens=4]]"},
        {"input": "[[tokens=0]]"},
        {"input": "[[tool_calls=3]]", "tools": TOOLS, "metadata": {"a": "b"}},
        {"input": "[[refusal]]", "instructions": "be brief"},
        {"input": "[[tokens=3]]", "include": ["message.output_text.logprobs"], "top_logprobs": 2},
    ],
)
async def test_every_shape_passes_the_sdks_own_types(body: dict[str, Any]) -> None:
    """The SDK reads leniently; its models, asked to validate, do not."""
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(request("/v1/responses", {"model": MODEL, **body}))
        Response.model_validate_json((await answered(reader))[2])
        writer.write(request("/v1/responses", {"model": MODEL, "stream": True, **body}))
        *events, rest = (await answered(reader))[2].decode().split("\n\n")
        assert rest == ""
        assert not any("[DONE]" in event for event in events)
        for nth, event in enumerate(events):
            name, data = event.split("\n")
            read = EVENTS.validate_json(data.removeprefix("data: "))
            assert (read.type, read.sequence_number) == (name.removeprefix("event: "), nth)
