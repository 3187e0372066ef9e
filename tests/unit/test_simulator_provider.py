"""The provider without a socket: whatever is asked, there is an answer and one entry in the ledger."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmjobs.providers.simulator.calls import CHAT, EMBEDDINGS, RESPONSES
from llmjobs.providers.simulator.control import Behaviour
from llmjobs.providers.simulator.faults import FAULTS
from llmjobs.providers.simulator.ledger import Ledger
from llmjobs.providers.simulator.provider import Provider, Request

NOON = 1_800_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.sampled_from(
    ["hello", "[[tokens=3]]", "[[tool_calls=2]]", "[[refusal]]", "[[fault=reset:1:0]]", "[[ttft_ms=x]]", "[[tokens]]"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"])}, optional={"content": TEXTS | JSON}
    ),
    max_size=3,
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=8)
FUNCTIONS = st.fixed_dictionaries(
    {"type": st.just("function")}, optional={"function": JSON, "name": NAMES, "parameters": JSON}
)
SOUND = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "input": "hello"}
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["m", "sim-stall", "m@malformed", "m@typo"]) | JSON,
        "messages": MESSAGES | JSON,
        "input": TEXTS | MESSAGES | JSON,
        "stream": st.booleans() | JSON,
        "stream_options": st.just({"include_usage": True}) | JSON,
        "n": st.integers(-1, 3) | JSON,
        "max_tokens": st.integers(-1, 9) | JSON,
        "tools": st.lists(FUNCTIONS, max_size=2) | JSON,
        "tool_choice": st.sampled_from(["required", "auto"]) | FUNCTIONS | JSON,
        "logprobs": st.booleans() | JSON,
        "top_logprobs": st.integers(-1, 5) | JSON,
        "include": st.just(["message.output_text.logprobs"]) | JSON,
        "instructions": JSON,
        "dimensions": st.integers(-1, 9) | JSON,
        "encoding_format": st.sampled_from(["float", "base64"]) | JSON,
    },
).map(lambda wild: {**SOUND, **wild})
FAULT_HEADERS = st.sampled_from([None, "none", *sorted(FAULTS)])


def asked(provider: Provider, body: Any, *, path: str = CHAT, headers: Mapping[bytes, bytes] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider.respond(Request("POST", path, "", {b"authorization": b"Bearer x", **(headers or {})}, raw, True))


@given(path=st.sampled_from([CHAT, RESPONSES, EMBEDDINGS]), body=BODIES | JSON, fault=FAULT_HEADERS)
def test_whatever_is_asked_there_is_an_answer_and_an_entry(path: str, body: Any, fault: str | None) -> None:
    ledger = Ledger()
    provider = Provider(Behaviour(rpm=1, tpm=1_000, seed=1), ledger, clock=lambda: NOON)
    headers = {b"x-sim-fault": fault.encode()} if fault else {}
    answer, entry = asked(provider, body, path=path, headers=headers)
    assert entry is not None
    assert answer.status in (0, 200, 400, 401, 403, 404, 429, 500, 502, 503)
    assert entry.status == answer.status
    assert len(ledger.page()["calls"]) == 1
    if answer.status >= 400:
        assert entry.input_tokens == 0
        assert answer.content_type == "text/html" or set(json.loads(answer.body)["error"]) >= {"message", "type"}
    assert answer.head().endswith(b"\r\n\r\n") or answer.status == 0


@given(path=st.sampled_from([CHAT, RESPONSES]), body=BODIES)
def test_a_stream_has_an_event_for_each_token_that_is_billed(path: str, body: Any) -> None:
    provider = Provider(Behaviour(), Ledger(), clock=lambda: NOON)
    streamed, _ = asked(provider, {**body, "stream": True}, path=path)
    whole, _ = asked(provider, {**body, "stream": False}, path=path)
    if streamed.script and whole.status == 200 and whole.outcome == "completed":
        assert len(streamed.script.events) * streamed.script.tokens_per_event == whole.body_tokens


def test_bodies_that_are_no_json_are_bad_requests() -> None:
    provider = Provider(Behaviour(rpm=1), Ledger(), clock=lambda: NOON)
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        answer, _ = asked(provider, raw)
        assert answer.status == 400


def test_what_is_counted_for_faults_and_accounts_is_bounded() -> None:
    """A simulator that runs for days must not grow with the keys and jobs that it has seen."""
    provider = Provider(Behaviour(rpm=1), Ledger(entries_max=10), clock=lambda: NOON)
    body = {"model": "m@server_error:1", "messages": [{"role": "user", "content": "x"}]}
    for nth in range(10_050):
        headers = {b"authorization": b"Bearer %d" % nth, b"x-client-request-id": b"job-%d.1" % nth}
        asked(provider, body, headers=headers)
    assert len(provider._accounts) == 10_000
