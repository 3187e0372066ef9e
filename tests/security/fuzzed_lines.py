"""What the fuzzer sends as JSON Lines: objects with fields of ours and of nobody's, other JSON, and no JSON at all.

The fuzzer imports it, outside of Django.
"""

import json

import schemathesis
from hypothesis import strategies as st

TYPES = ("application/jsonl", "application/x-ndjson", "application/json-lines")
FIELDS = (
    "model", "messages", "input", "body", "endpoint", "priority", "delay_s", "max_attempts", "dedupe", "when_limited",
    "metadata", "idempotency_key", "surprise",
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
GOOD = st.fixed_dictionaries(
    {"model": st.just("gpt"), "input": st.text(min_size=1).filter(lambda text: "\0" not in text)},
    optional={"idempotency_key": st.sampled_from("abc"), "priority": st.sampled_from(["low", "critical", 7])},
)
OBJECTS = GOOD | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5) | VALUES
LINES = OBJECTS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\n\n"])
BODIES = st.builds(lambda lines, end: end.join(lines) + end, st.lists(LINES, max_size=20), ENDS)

schemathesis.openapi.media_type(TYPES[0], BODIES, aliases=TYPES[1:])
