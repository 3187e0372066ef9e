"""`/v1/embeddings` written down: a unit vector for each input, as floats or as base64 of float32.

Owns the shape, which is OpenAI's. Invariant: equal inputs have equal vectors in every process.
"""

import base64
import sys
from functools import lru_cache

from llmjobs.providers.simulator.answers import json_text
from llmjobs.providers.simulator.calls import Call
from llmjobs.providers.simulator.fields import BadRequest, integer
from llmjobs.providers.simulator.words import seed_of, vector_of

DIMENSIONS_MAX = 4096
DIMENSIONS_DEFAULT = 1536
DIMENSIONS = {"text-embedding-3-large": 3072}


def whole(call: Call) -> str:
    """Raises BadRequest."""
    dimensions = integer(call.body, "dimensions", 1, DIMENSIONS_MAX) or DIMENSIONS.get(call.model, DIMENSIONS_DEFAULT)
    encoding = call.body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        message = f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'."
        raise BadRequest(message, param="encoding_format", code="invalid_value")
    write = _floats if encoding == "float" else _base64
    rows = [
        f'{{"object":"embedding","index":{index},"embedding":{write(seed_of(text), dimensions)}}}'
        for index, text in enumerate(call.inputs)
    ]
    usage = f'{{"prompt_tokens":{call.input_tokens},"total_tokens":{call.input_tokens}}}'
    return f'{{"object":"list","data":[{",".join(rows)}],"model":{json_text(call.model)},"usage":{usage}}}'


@lru_cache(maxsize=256)  # some 30 kB each
def _floats(seed: bytes, dimensions: int) -> str:
    return json_text(vector_of(seed, dimensions).tolist())


@lru_cache(maxsize=1024)
def _base64(seed: bytes, dimensions: int) -> str:
    vector = vector_of(seed, dimensions)
    if sys.byteorder == "big":
        vector.byteswap()  # the wire has little-endian
    return f'"{base64.b64encode(vector.tobytes()).decode()}"'
