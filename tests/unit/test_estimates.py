"""What a call will use, guessed from its request; and what it cost."""

from decimal import Decimal

import pytest

from llmjobs.estimates import OUTPUT_MAX, USD_MAX, cost_usd, estimate, estimated_usd, weighted_tokens
from llmjobs.states import Endpoint, Size


def guess(body, endpoint=Endpoint.CHAT, **policy):
    defaults = {"output_weight": 1.0, "default_output_tokens": 256, "short_output_tokens": 256}
    return estimate(endpoint, body, **defaults | policy)


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


def test_input_is_characters_by_four_and_some_for_each_message():
    assert guess(said("x" * 400)).input_tokens == 104
    assert guess({"messages": said("x" * 400)["messages"] * 3}).input_tokens == 312


def test_instructions_tools_and_parts_count():
    alone = guess(said("hi")).input_tokens
    tool = {"type": "function", "function": {"name": "f" * 40, "parameters": {"type": "object"}}}
    assert guess(said("hi") | {"tools": [tool]}).input_tokens > alone + 10
    assert guess({"input": "hi", "instructions": "x" * 400}, Endpoint.RESPONSES).input_tokens > 100
    parts = [{"type": "text", "text": "x" * 400}]
    assert guess({"messages": [{"role": "user", "content": parts}]}).input_tokens > 100


def test_an_attachment_counts_alike_however_long_its_encoding_is():
    def picture(length):
        url = "data:image/png;base64," + "A" * length
        return guess({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]})

    assert picture(1_000_000).input_tokens == picture(10).input_tokens


def test_tokens_given_as_numbers_are_counted_as_such():
    assert guess({"input": [1, 2, 3]}, Endpoint.EMBEDDINGS).input_tokens == 3
    assert guess({"input": [[1, 2, 3], [4, 5]]}, Endpoint.EMBEDDINGS).input_tokens == 5


def test_embeddings_have_no_output():
    embedded = guess({"input": "some text", "max_tokens": 9}, Endpoint.EMBEDDINGS)
    assert (embedded.output_tokens, embedded.size) == (0, Size.SHORT)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_output_is_never_guessed_above_what_is_allowed(name):
    assert guess(said("hi") | {name: 7}).output_tokens == 7


def test_a_generous_limit_does_not_raise_the_guess():
    assert guess(said("hi") | {"max_tokens": 100_000}).output_tokens == 256


@pytest.mark.parametrize("limit", [True, -1, "7", None, 7.5])
def test_a_limit_that_is_none_is_not_taken_for_one(limit):
    assert guess(said("hi") | {"max_tokens": limit}).output_tokens == 256


def test_each_choice_is_an_output():
    several = guess(said("hi") | {"n": 3, "max_tokens": 100})
    assert (several.output_tokens, several.size) == (300, Size.LONG)


@pytest.mark.parametrize(("n", "output_tokens"), [(0, 256), (-5, 256), (10**9, 128 * 256), (True, 256), ("3", 256)])
def test_an_odd_number_of_choices_stays_sane(n, output_tokens):
    assert guess(said("hi") | {"n": n}).output_tokens == output_tokens


def test_what_is_short_is_a_matter_of_expected_output():
    assert guess(said("x" * 100_000)).size is Size.SHORT
    assert guess(said("hi"), default_output_tokens=257).size is Size.LONG


def test_cost_weighs_output_as_it_is_priced():
    assert weighted_tokens(10, 5, 4.0) == 30
    assert guess(said("xxxx") | {"max_tokens": 5}, output_weight=4.0).cost == 5 + 20


def test_dollars_are_exact():
    assert cost_usd(1_000_000, 500_000, Decimal("0.40"), Decimal("1.60")) == Decimal("1.20")
    assert cost_usd(3, 0, Decimal("0.1"), None) == Decimal("0.0000003")


def test_without_a_price_there_is_no_cost():
    assert cost_usd(5, 5, None, None) is None


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, None),
        ({"n": 3}, None),
        ({"max_tokens": 9_000}, 9_000),
        ({"max_tokens": 9_000, "max_completion_tokens": 700}, 700),
        ({"max_tokens": 100, "n": 3}, 300),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 10**30}, OUTPUT_MAX),
        ({"max_tokens": OUTPUT_MAX, "n": 128}, OUTPUT_MAX),
    ],
)
def test_the_most_output_is_what_the_request_says_for_all_its_choices(asked, most):
    assert guess(said("hi") | asked).max_output_tokens == most


def test_embeddings_can_have_no_output_whatever_they_say():
    assert guess({"input": "some text", "max_tokens": 9}, Endpoint.EMBEDDINGS).max_output_tokens == 0


def test_expected_dollars_are_those_of_the_expected_tokens_to_eight_places():
    expected = guess({"input": [1, 2, 3], "max_output_tokens": 7}, Endpoint.RESPONSES)
    assert estimated_usd(expected, Decimal("0.15"), Decimal("0.60")) == Decimal("0.00000465")
    assert estimated_usd(expected, Decimal("0.001"), None) == 0
    assert estimated_usd(expected, None, None) is None


def test_dollars_beyond_reason_still_fit_their_column():
    many = guess({"input": [1] * 2_000_000}, Endpoint.RESPONSES)
    assert estimated_usd(many, Decimal(999_999), None) == USD_MAX


@pytest.mark.parametrize("depth", [50, 90])
def test_a_deep_request_can_be_counted(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": schema}
    assert guess(said("hi") | {"tools": [schema]}).input_tokens > depth


def test_an_empty_request_still_counts_one():
    assert guess({}).input_tokens == 1
