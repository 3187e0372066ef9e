"""Streams put together again: the body is the one that the provider would have sent without streaming."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.assembly import (
    ChatAssembler,
    ResponsesAssembler,
    StreamError,
    assembler_for,
    parse_json,
    text_of,
    tokens_of,
)
from llmjobs.states import Endpoint

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp"}
SCALAR = st.sampled_from([None, True, 0, 7, 1.5, "", "text", "response.failed", "response.output_text.delta"])
KEYS = st.sampled_from(
    [
        "choices", "delta", "index", "message", "content", "tool_calls", "usage", "error", "type", "response", "code",
        "role", "logprobs", "output", "text",
    ]
)  # fmt: skip
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=5)


def chunk(delta, index=0, **more):
    choice = {"index": index, "delta": delta, "finish_reason": None, "logprobs": None} | more
    return HEAD | {"choices": [choice]}


def assembled(*chunks, end=True):
    assembler = ChatAssembler()
    text = "".join(assembler.add(json.dumps(part).encode()) for part in chunks)
    if end:
        assembler.add(b"[DONE]")
    return assembler, text


def test_the_deltas_make_the_message_of_a_plain_answer():
    assembler, text = assembled(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, finish_reason="stop"),
        HEAD | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
    )
    assert text == "Hello" and assembler.is_finished
    assert assembler.body() == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_without_its_own_end_a_stream_is_not_finished():
    assembler, _ = assembled(chunk({"content": "Hel"}, finish_reason="stop"), end=False)
    assert not assembler.is_finished


def test_tool_calls_are_put_together_by_their_index():
    def call(index, **fields):
        return {"tool_calls": [{"index": index, **fields}]}

    assembler, text = assembled(
        chunk({"role": "assistant", "content": None}),
        chunk(call(0, id="call_a", type="function", function={"name": "weather", "arguments": ""})),
        chunk(call(1, id="call_b", type="function", function={"name": "time", "arguments": ""})),
        chunk(call(0, function={"arguments": '{"city": '})),
        chunk(call(1, function={"arguments": "{}"})),
        chunk(call(0, function={"arguments": '"Oslo"}'})),
        chunk({}, finish_reason="tool_calls"),
    )
    assert text == ""
    assert assembler.body()["choices"][0]["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    }


def test_several_choices_are_kept_apart_and_only_the_first_is_the_text():
    assembler, text = assembled(
        chunk({"role": "assistant", "content": "a"}, 1),
        chunk({"role": "assistant", "content": "x"}, 0),
        chunk({"content": "b"}, 1),
        chunk({"content": "y"}, 0),
        chunk({}, 0, finish_reason="stop"),
        chunk({}, 1, finish_reason="length"),
    )
    choices = assembler.body()["choices"]
    assert text == "xy"
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "xy", "stop"),
        (1, "ab", "length"),
    ]


def test_a_refusal_is_kept_and_is_no_text():
    assembler, text = assembled(
        chunk({"role": "assistant", "content": None, "refusal": "I"}), chunk({"refusal": " can't"})
    )
    assert text == ""
    assert assembler.body()["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": "I can't"}


def test_logprobs_of_all_tokens_are_kept():
    def logprobs(token):
        return {"content": [{"token": token, "logprob": -0.5, "bytes": [1], "top_logprobs": []}], "refusal": None}

    assembler, _ = assembled(
        chunk({"content": "a"}, logprobs=logprobs("a")), chunk({"content": "b"}, logprobs=logprobs("b"))
    )
    kept = assembler.body()["choices"][0]["logprobs"]
    assert [entry["token"] for entry in kept["content"]] == ["a", "b"]
    assert kept["refusal"] is None


def test_what_this_version_does_not_know_is_kept():
    assembler, _ = assembled(
        chunk({"role": "assistant", "content": "a", "reasoning_content": "hm"}, stop_sequence="x")
        | {"service_tier": "flex"},
        chunk({"reasoning_content": "mm"}),
    )
    body = assembler.body()
    assert body["service_tier"] == "flex"
    assert body["choices"][0]["stop_sequence"] == "x"
    assert body["choices"][0]["message"]["reasoning_content"] == "hmmm"


def test_a_piece_is_counted_where_something_is_said():
    assembler, _ = assembled(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "a"}), chunk({"refusal": "b"}), chunk({})
    )
    assert assembler.piece_count == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "x", "type": "server_error", "code": None}, "server_error"),
        ({"message": "x", "code": "rate_limit_exceeded"}, "rate_limit_exceeded"),
        ({"message": "x", "code": 502}, "502"),
        ("plain words", None),
    ],
)
def test_an_error_inside_a_stream_is_told_with_its_code(error, code):
    with pytest.raises(StreamError) as caught:
        assembled({"error": error})
    assert caught.value.code == code and str(caught.value)


@pytest.mark.parametrize("name", ["response.completed", "response.incomplete"])
def test_the_last_event_of_a_response_carries_its_body(name):
    assembler = ResponsesAssembler()
    body = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.function_call_arguments.delta", "delta": "{}"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": name, "response": body},
    ]
    text = "".join(assembler.add(json.dumps(event).encode()) for event in events)
    assert text == "Hello" and assembler.is_finished and assembler.piece_count == 3
    assert assembler.body() == body


def test_a_response_that_failed_is_an_error():
    assembler = ResponsesAssembler()
    event = {
        "type": "response.failed",
        "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
    }
    with pytest.raises(StreamError) as caught:
        assembler.add(json.dumps(event).encode())
    assert caught.value.code == "server_error"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "code": "server_error", "message": "x", "param": None},
        {"type": "error", "error": {"code": "server_error", "message": "x"}},
        {"error": {"code": "server_error", "message": "x"}},
    ],
)
def test_an_error_event_of_a_response_stream_is_an_error(event):
    with pytest.raises(StreamError) as caught:
        ResponsesAssembler().add(json.dumps(event).encode())
    assert caught.value.code == "server_error"


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.RESPONSES])
@given(events=st.lists(OBJECTS | JSON, min_size=1, max_size=4))
def test_nothing_that_a_provider_says_breaks_the_attempt(endpoint, events):
    """What is no chunk is a ValueError or a StreamError, both of which end the attempt as `unknown`."""
    assembler = assembler_for(endpoint)
    try:
        for event in events:
            assert isinstance(assembler.add(json.dumps(event).encode()), str)
        body = assembler.body()
    except (ValueError, StreamError):
        return
    text_of(endpoint, body)
    json.dumps(body)


@given(body=OBJECTS)
def test_no_body_whatever_breaks_the_reading_of_its_text(body):
    for endpoint in Endpoint:
        assert isinstance(text_of(endpoint, body), str)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "-Infinity",
        "{",
        "",
        "[" * 100_000,
        "1" * 5_000,
        "1e999",
        "-1E+400",
        "9" * 400 + ".0",
        "\xff",
    ],
)
def test_only_json_is_json(text):
    with pytest.raises(ValueError):
        parse_json(text.encode("latin-1"))


@pytest.mark.parametrize(("text", "value"), [("1e300", 1e300), ("1e-999", 0.0), ('"1e999"', "1e999"), ("\ufeff7", 7)])
def test_what_looks_odd_may_be_json(text, value):
    assert parse_json(text.encode()) == value


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2)),
        ({"prompt_tokens": 3, "total_tokens": 3}, (3, 0)),
        (None, None),
        ({}, None),
        ([], None),
        ({"prompt_tokens": "3", "completion_tokens": 2}, None),
        ({"prompt_tokens": -3, "completion_tokens": 2}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"prompt_tokens": 2**31, "completion_tokens": 2}, None),
        ({"prompt_tokens": 3, "completion_tokens": 2.5}, None),
    ],
)
def test_tokens_in_the_words_of_each_endpoint(usage, tokens):
    assert tokens_of(usage) == tokens


def test_the_text_of_a_body_is_its_first_choice():
    chat = {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}
    parts = [
        {"type": "output_text", "text": "a"},
        {"type": "refusal", "refusal": "no"},
        {"type": "output_text", "text": "b"},
    ]
    response = {"output": [{"type": "reasoning"}, {"type": "message", "content": parts}]}
    assert text_of(Endpoint.CHAT, chat) == "a"
    assert text_of(Endpoint.RESPONSES, response) == "ab"
    assert text_of(Endpoint.EMBEDDINGS, {"data": []}) == ""


# What is known of an answer before its stream has come to its own end.


def test_a_text_is_whole_once_its_finish_reason_is_there():
    assembler, _ = assembled(chunk({"role": "assistant", "content": "Hi"}), end=False)
    assert assembler.finish_reason is None
    assembler.add(json.dumps(chunk({}, finish_reason="stop")).encode())
    assert assembler.finish_reason == "stop" and not assembler.is_finished


def test_the_first_of_several_answers_is_not_all():
    assembler = ChatAssembler(2)
    assembler.add(json.dumps(chunk({"content": "a"}, finish_reason="stop")).encode())
    assert assembler.finish_reason is None


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}), chunk({}, finish_reason="tool_calls")],
        [chunk({"refusal": "No."}), chunk({}, finish_reason="stop")],
        [chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, finish_reason="stop")],
        [chunk({"content": "a"}, logprobs={"content": [1]}), chunk({}, finish_reason="stop")],
    ],
    ids=["tool call", "refusal", "two choices", "logprobs"],
)
def test_an_answer_that_is_more_than_its_text_is_never_whole_before_its_end(chunks):
    assert assembled(*chunks, end=False)[0].finish_reason is None


@given(st.lists(OBJECTS, max_size=6))
def test_whatever_came_before_a_break_has_a_body(chunks):
    for assembler in (ChatAssembler(), ResponsesAssembler()):
        for part in chunks:
            try:
                assembler.add(json.dumps(part).encode())
            except (StreamError, ValueError):
                break
        assert json.dumps(assembler.interrupted("text"))
        assert assembler.finish_reason is None or isinstance(assembler.finish_reason, str)
