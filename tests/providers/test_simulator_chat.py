"""Chat completions as the SDK reads them: the stream says what the call without a stream says."""

import asyncio
import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.providers.simulating import answered, calls_of, connected, request, says, simulated

MODEL = "gpt-4.1-mini"
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    }
    for name in ("weather", "news")
]


def assembled(chunks: list[ChatCompletionChunk]) -> dict[int, dict[str, Any]]:
    """What the chunks say, by choice: content, refusal, tool calls, logprobs, finish reason."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.choices:
            said = choices.setdefault(
                part.index, {"content": None, "refusal": None, "tools": {}, "logprobs": [], "finish": None}
            )
            for name in ("content", "refusal"):
                if (piece := getattr(part.delta, name)) is not None:
                    said[name] = (said[name] or "") + piece
            for call in part.delta.tool_calls or []:
                tool = said["tools"].setdefault(call.index, {"id": call.id, "name": None, "arguments": ""})
                assert call.function is not None
                tool["name"] = tool["name"] or call.function.name
                tool["arguments"] += call.function.arguments or ""
            if part.logprobs:
                said["logprobs"] += part.logprobs.content or []
            said["finish"] = part.finish_reason or said["finish"]
    return choices


async def both(**body: Any) -> tuple[ChatCompletion, list[ChatCompletionChunk]]:
    """The same call without and with a stream."""
    async with simulated() as (_, client):
        completion = await client.chat.completions.create(model=MODEL, **body)
        stream = await client.chat.completions.create(
            model=MODEL, stream=True, stream_options={"include_usage": True}, **body
        )
        return completion, [chunk async for chunk in stream]


async def test_the_chunks_together_are_the_completion() -> None:
    completion, chunks = await both(messages=says("hello [[tokens=300]]"))
    message = completion.choices[0].message
    said = assembled(chunks)[0]
    assert message.role == "assistant"
    assert said["content"] == message.content
    assert said["finish"] == completion.choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == completion.usage
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 300
    assert completion.usage.prompt_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_chunk_brings_one_token() -> None:
    _, chunks = await both(messages=says("[[tokens=12]]"))
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == 12


async def test_without_include_usage_no_chunk_has_usage() -> None:
    async with simulated() as (_, client):
        stream = await client.chat.completions.create(model=MODEL, messages=says("[[tokens=3]]"), stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_choices_differ_and_are_streamed_side_by_side() -> None:
    completion, chunks = await both(messages=says("[[tokens=8]]"), n=3)
    texts = [choice.message.content for choice in completion.choices]
    assert len(set(texts)) == 3
    assert [assembled(chunks)[index]["content"] for index in range(3)] == texts
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 24


async def test_the_maximum_ends_an_answer_with_length() -> None:
    completion, chunks = await both(messages=says("[[tokens=50]]"), max_completion_tokens=9)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 9
    assert completion.choices[0].finish_reason == "length"
    assert assembled(chunks)[0]["finish"] == "length"


@pytest.mark.parametrize(
    ("text", "choice", "names"),
    [
        ("[[tool_calls=2]]", "auto", ["weather", "news"]),
        ("hello", "required", ["weather"]),
        ("hello", {"type": "function", "function": {"name": "news"}}, ["news"]),
    ],
)
async def test_tools_are_called_on_demand(text: str, choice: Any, names: list[str]) -> None:
    completion, chunks = await both(messages=says(text), tools=TOOLS, tool_choice=choice)
    message = completion.choices[0].message
    assert message.content is None
    assert completion.choices[0].finish_reason == "tool_calls"
    tools = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [call.function.name for call in tools] == names
    for call in tools:
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "days"}
    said = assembled(chunks)[0]
    assert [said["tools"][nth]["arguments"] for nth in range(len(names))] == [c.function.arguments for c in tools]
    assert [said["tools"][nth]["name"] for nth in range(len(names))] == names
    assert all(tool["id"].startswith("call_") for tool in said["tools"].values())
    assert said["content"] is None


async def test_offered_tools_are_left_alone_without_a_demand() -> None:
    completion, _ = await both(messages=says("hello"), tools=TOOLS)
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].message.content


async def test_a_refusal_comes_on_demand() -> None:
    completion, chunks = await both(messages=says("[[refusal]]"))
    assert completion.choices[0].message.content is None
    assert completion.choices[0].message.refusal
    assert assembled(chunks)[0]["refusal"] == completion.choices[0].message.refusal


async def test_logprobs_come_on_request_for_each_token() -> None:
    completion, chunks = await both(messages=says("[[tokens=5]]"), logprobs=True, top_logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(shown.token for shown in logprobs.content) == completion.choices[0].message.content
    assert [len(shown.top_logprobs) for shown in logprobs.content] == [2] * 5
    assert assembled(chunks)[0]["logprobs"] == logprobs.content


@pytest.mark.parametrize(
    "body",
    [
        {"messages": says("[[tokens=4]]")},
        {"messages": says("[[tokens=0]]"), "n": 2},
        {"messages": says("[[tool_calls=3]]"), "tools": TOOLS},
        {"messages": says("[[refusal]]"), "logprobs": True, "top_logprobs": 1},
    ],
)
async def test_every_shape_passes_the_sdks_own_types(body: dict[str, Any]) -> None:
    """The SDK reads leniently; its models, asked to validate, do not."""
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(request("/v1/chat/completions", {"model": MODEL, **body}))
        ChatCompletion.model_validate_json((await answered(reader))[2])
        options = {"stream": True, "stream_options": {"include_usage": True}}
        writer.write(request("/v1/chat/completions", {"model": MODEL, **options, **body}))
        _, headers, raw = await answered(reader)
        *events, done, rest = raw.decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        assert headers["content-type"].startswith("text/event-stream")
        for event in events:
            ChatCompletionChunk.model_validate_json(event.removeprefix("data: "))


async def test_a_strange_models_name_is_echoed_as_it_is() -> None:
    name = 'a "quoted" \\ modèle\n🙂'
    async with simulated() as (_, client):
        completion = await client.chat.completions.create(model=name, messages=says("[[tokens=1]]"))
        stream = await client.chat.completions.create(model=name, messages=says("[[tokens=1]]"), stream=True)
        assert completion.model == name
        assert {chunk.model async for chunk in stream} == {name}


async def test_the_first_token_waits_and_the_others_keep_their_pace() -> None:
    loop = asyncio.get_running_loop()
    async with simulated(ttft_ms=100, tokens_per_s=100) as (_, client):
        begun_at = loop.time()
        stream = await client.chat.completions.create(model=MODEL, messages=says("[[tokens=31]]"), stream=True)
        arrived_s = [loop.time() - begun_at async for chunk in stream if chunk.choices[0].delta.content]
        assert len(arrived_s) == 31
        assert arrived_s[0] >= 0.1
        assert arrived_s[-1] >= 0.1 + 30 / 100
        assert arrived_s[-1] - arrived_s[0] > 0.1  # not all in one piece, late as it may be on a busy machine
        begun_at = loop.time()
        await client.chat.completions.create(model=MODEL, messages=says("[[tokens=31]]"))
        assert loop.time() - begun_at >= 0.1 + 31 / 100


async def test_a_call_may_ask_for_a_pace_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    async with simulated(ttft_ms=60_000) as (_, client):
        begun_at = loop.time()
        headers = {"x-sim-ttft-ms": "0", "x-sim-tokens-per-s": "100", "x-sim-output-tokens": "21"}
        await client.chat.completions.create(model=MODEL, messages=says("hello"), extra_headers=headers)
        await client.chat.completions.create(
            model=MODEL, messages=says("[[ttft_ms=0]] [[tokens_per_s=100]] [[tokens=21]]")
        )
        assert 2 * 21 / 100 <= loop.time() - begun_at < 60, "long before the first token of others"


async def test_models_are_listed_and_found() -> None:
    async with simulated() as (simulator, client):
        names = [model.id async for model in client.models.list()]
        assert MODEL in names
        assert (await client.models.retrieve(MODEL)).id == MODEL
        assert calls_of(simulator) == []
