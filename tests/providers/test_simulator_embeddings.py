"""Embeddings as the SDK reads them: unit vectors, the same for the same text, as floats or as base64."""

import math
from typing import Any

import pytest
from openai import BadRequestError
from openai.types import CreateEmbeddingResponse

from tests.providers.simulating import answered, calls_of, connected, request, simulated

SMALL, LARGE = "text-embedding-3-small", "text-embedding-3-large"


async def test_floats_and_base64_are_the_same_vectors() -> None:
    async with simulated() as (_, client):
        by_default = await client.embeddings.create(model=SMALL, input=["one", "two"])  # the SDK asks for base64
        floats = await client.embeddings.create(model=SMALL, input=["one", "two"], encoding_format="float")
    assert [row.index for row in floats.data] == [0, 1]
    for left, right in zip(by_default.data, floats.data, strict=True):
        assert left.embedding == pytest.approx(right.embedding)
        assert math.sqrt(sum(part * part for part in right.embedding)) == pytest.approx(1, abs=1e-5)
    assert floats.data[0].embedding != floats.data[1].embedding


@pytest.mark.parametrize(("model", "dimensions", "length"), [(SMALL, None, 1536), (LARGE, None, 3072), (LARGE, 64, 64)])
async def test_a_vector_has_the_models_or_the_wanted_length(model: str, dimensions: int | None, length: int) -> None:
    async with simulated() as (_, client):
        body: Any = {} if dimensions is None else {"dimensions": dimensions}
        answer = await client.embeddings.create(model=model, input="one", **body)
    assert len(answer.data[0].embedding) == length


async def test_the_input_is_all_that_is_paid_for() -> None:
    async with simulated() as (simulator, client):
        answer = await client.embeddings.create(model=SMALL, input=["abcd", "abcde"])
        assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
        assert [(call["input_tokens"], call["output_tokens"]) for call in calls_of(simulator)] == [(3, 0)]


async def test_an_unknown_encoding_is_a_bad_request() -> None:
    async with simulated() as (_, client):
        wrong: Any = "hex"
        with pytest.raises(BadRequestError) as bad:
            await client.embeddings.create(model=SMALL, input="one", encoding_format=wrong)
    assert bad.value.param == "encoding_format"


async def test_the_shape_passes_the_sdks_own_types() -> None:
    async with simulated() as (simulator, _), connected(simulator.url) as (reader, writer):
        writer.write(request("/v1/embeddings", {"model": SMALL, "input": [[1, 2], [3]], "dimensions": 3}))
        CreateEmbeddingResponse.model_validate_json((await answered(reader))[2])
