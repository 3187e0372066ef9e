"""What the simulated model says: tokens, tool arguments and vectors, all of them a function of a seed.

Owns the vocabulary. Does not know an endpoint, nor how many tokens were asked for and why (`calls.py`).
Invariant: the same seed gives the same words in every process and on every Python, and the tokens of a
shorter answer are the first tokens of a longer one. A token is a word with its leading space or a piece of
one, so joining them gives the text.
"""

import hashlib
import json
from array import array
from collections.abc import Mapping
from functools import lru_cache
from math import sqrt
from typing import Any

TOKEN_CHARS = 4  # of a prompt: tokens are estimated as characters / 4, as providers' own rule of thumb has it


def seed_of(*texts: str) -> bytes:
    """16 bytes that stand for these texts. A lone surrogate, which JSON can carry, is hashed as it is."""
    return hashlib.blake2b("\x00".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def tokens_in(text: str) -> int:
    """How many input tokens `text` is counted as: a prompt of 4·N characters has N."""
    return -(-len(text) // TOKEN_CHARS)


@lru_cache(maxsize=4096)
def tokens_of(seed: bytes, count: int) -> tuple[str, ...]:
    """`count` tokens: one for each byte of the seed's SHAKE-128 stream, which a longer answer continues."""
    if count <= 0:
        return ()
    stream = hashlib.shake_128(seed).digest(count)
    return _FIRST[stream[0]], *map(_VOCABULARY.__getitem__, stream[1:])


def escaped(token: str) -> str:
    """`token` as it stands between the quotes of a JSON string."""
    return _ESCAPED.get(token) or json.dumps(token, ensure_ascii=False)[1:-1]


def pieces_of(text: str, chars: int = TOKEN_CHARS) -> tuple[str, ...]:
    """`text` (tool arguments, a refusal) cut into tokens of `chars` characters."""
    return tuple(text[at : at + chars] for at in range(0, len(text), chars))


def arguments_for(schema: Mapping[str, Any] | None, seed: bytes) -> str:
    """The JSON text of arguments that fit a tool's `parameters`, as far as types, enums and lengths go."""
    return json.dumps(_example(schema or {"type": "object"}, seed, depth=0), ensure_ascii=False, separators=(",", ":"))


def vector_of(seed: bytes, dimensions: int) -> array:
    """A unit vector of `dimensions` float32, from one byte of the seed's stream each."""
    raw = array("b", hashlib.shake_128(seed).digest(dimensions))
    length = sqrt(sum([part * part for part in raw])) or 1.0
    return array("f", [part / length for part in raw])


# A token for each value of a byte: 224 pseudo-words, and 32 pieces over which careless parsers stumble.
_STARTS = "bdfghklmnprstvwz"
_ENDS = ("a", "el", "ima", "on", "uro", "ante", "eth", "igo", "osk", "ulen", "ari", "est", "ond", "yra")
_WORDS = [f" {start}{end}" for start in _STARTS for end in _ENDS]
_PIECES = [
    *("ing", "ed", "ly", "er", "ness", "s", "ful", "ish"),
    *(
        ",",
        ".",
        ";",
        ":",
        "!",
        "?",
        " —",
        " (",
        ")",
        ' "',
        '"',
        "\n",
        "\n\n",
        "\t",
        "\\",
        "/",
        "&",
        " {",
        "}",
    ),
    *("é", "ñor", " 東京", " мир", "🙂"),
]
_VOCABULARY = [*_WORDS, *_PIECES]
_FIRST = [_WORDS[value % len(_WORDS)].strip().capitalize() for value in range(256)]
_ESCAPED = {token: json.dumps(token, ensure_ascii=False)[1:-1] for token in (*_VOCABULARY, *_FIRST)}

_DEPTH_MAX = 8  # a schema may refer to itself through its branches
_ITEMS_MAX = 100


def _example(schema: Any, seed: bytes, *, depth: int) -> Any:
    """A value that fits `schema`. What is not understood becomes null or an empty object."""
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return None
    if "const" in schema:
        return schema["const"]
    if values := _listed(schema, "enum"):
        return values[seed[0] % len(values)]
    if branches := _listed(schema, "anyOf") or _listed(schema, "oneOf"):
        return _example(branches[0], seed, depth=depth + 1)
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) and kind else kind:
        case "string":
            return "".join(tokens_of(seed, 3))
        case "integer":
            return int(_number(schema, "minimum")) + seed[1] % 10
        case "number":
            return _number(schema, "minimum") + seed[1] / 256
        case "boolean":
            return bool(seed[2] & 1)
        case "array":
            count = min(max(1, int(_number(schema, "minItems"))), _ITEMS_MAX)
            return [_example(schema.get("items"), seed_of(seed.hex(), str(n)), depth=depth + 1) for n in range(count)]
        case "null":
            return None
    properties = schema.get("properties")
    fields = properties.items() if isinstance(properties, Mapping) else ()
    return {name: _example(sub, seed_of(seed.hex(), name), depth=depth + 1) for name, sub in fields}


def _listed(schema: Mapping[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _number(schema: Mapping[str, Any], name: str) -> float:
    value = schema.get(name)
    return value if isinstance(value, (int, float)) else 0
