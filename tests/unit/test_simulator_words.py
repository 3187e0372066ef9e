"""What the simulated model says is a function of the seed, in every process and on every Python."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.simulator.words import (
    arguments_for,
    escaped,
    pieces_of,
    seed_of,
    tokens_in,
    tokens_of,
    vector_of,
)


def test_the_words_of_a_prompt_never_change() -> None:
    """Written down once: a change of the vocabulary changes what every stored answer of a test run says."""
    assert "".join(tokens_of(seed_of("hi"), 8)) == "Mest gulen ka tantes fari kyra gulen"


@given(text=st.text(max_size=50), count=st.integers(0, 300))
def test_an_answer_has_as_many_tokens_as_it_was_asked_for(text: str, count: int) -> None:
    tokens = tokens_of(seed_of(text), count)
    assert len(tokens) == count
    assert all(tokens)


@given(text=st.text(max_size=50), count=st.integers(1, 200))
def test_a_shorter_answer_is_the_beginning_of_a_longer_one(text: str, count: int) -> None:
    assert tokens_of(seed_of(text), 250)[:count] == tokens_of(seed_of(text), count)


def test_another_prompt_gets_another_answer() -> None:
    assert len({tokens_of(seed_of(f"prompt {n}"), 20) for n in range(1000)}) == 1000


@given(token=st.text(max_size=20))
def test_an_escaped_token_is_the_inside_of_a_json_string(token: str) -> None:
    assert json.loads(f'"{escaped(token)}"') == token


def test_the_vocabulary_holds_what_careless_parsers_stumble_over() -> None:
    said = "".join(tokens_of(seed_of("a long answer"), 20_000))
    for stumbling_block in ('"', "\\", "\n\n", "\t", "🙂", "東京", "{"):
        assert stumbling_block in said


@pytest.mark.parametrize(("chars", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4 * 7000, 7000)])
def test_a_prompt_of_four_characters_a_token_counts_as_that_many(chars: int, tokens: int) -> None:
    assert tokens_in("x" * chars) == tokens


@given(text=st.text(max_size=60))
def test_pieces_give_the_text_back(text: str) -> None:
    assert "".join(pieces_of(text)) == text


def test_tool_arguments_fit_their_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 3},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "share": {"type": "number"},
            "exact": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "fixed": {"const": 7},
        },
    }
    given_arguments = json.loads(arguments_for(schema, seed_of("x")))
    assert isinstance(given_arguments["city"], str)
    assert 3 <= given_arguments["days"] < 13
    assert given_arguments["unit"] in ("celsius", "fahrenheit")
    assert isinstance(given_arguments["share"], float)
    assert isinstance(given_arguments["exact"], bool)
    assert len(given_arguments["tags"]) == 2
    assert isinstance(given_arguments["either"], int)
    assert given_arguments["fixed"] == 7


@pytest.mark.parametrize("schema", [None, {}, {"type": 3}, {"type": "array", "minItems": 10**12}, {"anyOf": "?"}])
def test_a_strange_schema_still_gets_json(schema: dict[str, object] | None) -> None:
    json.loads(arguments_for(schema, seed_of("x")))


@given(text=st.text(max_size=30), dimensions=st.integers(1, 400))
def test_a_vector_has_length_one(text: str, dimensions: int) -> None:
    vector = vector_of(seed_of(text), dimensions)
    assert len(vector) == dimensions
    length = math.sqrt(sum(part * part for part in vector))
    assert length == pytest.approx(1, abs=1e-5) or not any(vector)
