"""What a request means: tokens, directives, headers, and which of them wins."""

import json
from typing import Any

import pytest

from llmjobs.providers.simulator.calls import CHAT, EMBEDDINGS, RESPONSES, Call, open_body, read_call
from llmjobs.providers.simulator.faults import Fault
from llmjobs.providers.simulator.fields import BadRequest


def read(endpoint: str, headers: dict[bytes, bytes] | None = None, **body: Any) -> Call:
    opened, model = open_body(json.dumps({"model": "m", **body}).encode())
    return read_call(endpoint, headers or {}, opened, model)


def chat(text: str, headers: dict[bytes, bytes] | None = None, **body: Any) -> Call:
    return read(CHAT, headers, messages=[{"role": "user", "content": text}], **body)


def test_a_directive_says_how_many_tokens_come() -> None:
    assert chat("hello [[tokens=7]]").output_tokens == 7
    assert chat("hello [[tokens=0]]").output_tokens == 0
    assert read(RESPONSES, input="hello [[tokens=7]]").output_tokens == 7


def test_a_header_wins_over_a_directive() -> None:
    assert chat("[[tokens=7]]", {b"x-sim-output-tokens": b"9"}).output_tokens == 9
    assert chat("[[fault=stall]]", {b"x-sim-fault": b"reset"}).orders == (Fault("reset"),)
    assert chat("[[ttft_ms=5]]", {b"x-sim-ttft-ms": b"6"}).ttft_ms == 6


def test_a_directive_wins_over_the_models_name() -> None:
    assert chat("[[fault=stall]]", model="sim-reset").orders == (Fault("stall"),)


@pytest.mark.parametrize(
    ("model", "order"), [("sim-stall", "stall"), ("gpt-4.1@stall", "stall"), ("a@stall:1:2", "stall:1:2")]
)
def test_a_models_name_can_order_a_fault(model: str, order: str) -> None:
    name, *rest = order.split(":")
    assert chat("hello", model=model).orders == (Fault(name, int(rest[0]), float(rest[1])) if rest else Fault(name),)


def test_a_model_that_only_looks_like_a_fault_is_a_model() -> None:
    assert chat("hello", model="sim-small").orders == ()


def test_only_the_last_user_message_gives_directives() -> None:
    messages = [
        {"role": "user", "content": "[[tokens=3]] [[fault=stall]]"},
        {"role": "assistant", "content": "[[tokens=4]]"},
        {"role": "user", "content": "[[tokens=5]]"},
        {"role": "assistant", "content": "[[tokens=6]]"},
    ]
    call = read(CHAT, messages=messages)
    assert (call.output_tokens, call.orders) == (5, ())


def test_the_maximum_caps_a_directive_and_says_so() -> None:
    call = chat("[[tokens=50]]", max_tokens=10)
    assert call.output_tokens == 10
    assert call.choices[0].is_capped
    assert not chat("[[tokens=50]]", max_completion_tokens=50).choices[0].is_capped
    assert read(RESPONSES, input="[[tokens=50]]", max_output_tokens=1).output_tokens == 1


def test_without_a_wish_the_prompt_decides_between_20_and_120() -> None:
    counts = [chat(f"prompt {n}").output_tokens for n in range(300)]
    assert counts == [chat(f"prompt {n}").output_tokens for n in range(300)]
    assert min(counts) >= 20
    assert max(counts) <= 120
    assert len(set(counts)) > 50


def test_input_tokens_are_all_the_texts_characters_by_four() -> None:
    messages = [
        {"role": "system", "content": "x" * 40},
        {
            "role": "user",
            "content": [{"type": "text", "text": "y" * 30}, {"type": "image_url", "image_url": {"url": "z"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert read(CHAT, messages=messages).input_tokens == 18
    assert read(RESPONSES, instructions="x" * 8, input=[{"role": "user", "content": "y" * 8}]).input_tokens == 4
    assert read(EMBEDDINGS, input=["abcd", "abcde"]).input_tokens == 3
    assert read(EMBEDDINGS, input=[[1, 2, 3], [4]]).input_tokens == 4
    assert read(EMBEDDINGS, input=[1, 2, 3]).inputs == ("000100020003",)


def test_the_same_prompt_is_answered_the_same_whatever_the_model() -> None:
    assert chat("hello", model="a").choices == chat("hello", model="b").choices


@pytest.mark.parametrize("size", [-1, 200_001, "x", "1.5"])
def test_a_number_of_tokens_out_of_bounds_is_refused(size: Any) -> None:
    with pytest.raises(BadRequest, match="tokens"):
        chat(f"[[tokens={size}]]")


def test_other_double_brackets_are_text() -> None:
    assert chat("see [[Main Page]] and [[x=1]]").orders == ()


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (CHAT, {"model": None, "messages": [{}]}, "model"),
        (CHAT, {"model": 5, "messages": [{}]}, "model"),
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": ["hello"]}, "messages"),
        (CHAT, {"messages": "hello"}, "messages"),
        (CHAT, {"messages": [{}], "stream": "yes"}, "stream"),
        (CHAT, {"messages": [{}], "n": 0}, "n"),
        (CHAT, {"messages": [{}], "max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": [{}], "max_tokens": True}, "max_tokens"),
        (CHAT, {"messages": [{}], "tools": "all", "tool_choice": "required"}, "tools"),
        (
            CHAT,
            {"messages": [{}], "tools": [], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        (CHAT, {"messages": [{}], "model": "m@typo"}, "model"),
        (RESPONSES, {}, "input"),
        (RESPONSES, {"input": 5}, "input"),
        (EMBEDDINGS, {}, "input"),
        (EMBEDDINGS, {"input": ""}, "input"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": [5, "x"]}, "input"),
    ],
)
def test_a_bad_request_names_its_field(endpoint: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as bad:
        read(endpoint, **body)
    assert bad.value.error.param == param
    assert bad.value.error.status == 400


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        open_body(raw)
