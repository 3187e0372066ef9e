"""One call to a provider, over real HTTP: what is sent, and what each way to answer it comes to."""

import asyncio
import json
import threading

import pytest

from llmjobs.execution import clean
from llmjobs.outcomes import Kind, Told
from llmjobs.providers.calls import Call, Timeouts
from llmjobs.providers.openai import OpenAIProviders
from llmjobs.states import Endpoint
from tests.worker.scripted import PATIENCE_S, RESET, json_answer, said, scripted, stream_answer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "Hello"}}],
    "usage": USAGE,
}


def called(url, body=None, *, endpoint=Endpoint.CHAT, timeouts=None, on_text=None, **fields):
    """(outcome, texts as viewers would get them)"""
    texts = []

    def heard(text):
        texts.append(text)
        if on_text is not None:
            on_text()

    call = Call(
        endpoint=endpoint,
        base_url=url,
        model="upstream",
        body=json.dumps({"messages": [{"role": "user", "content": "hi"}]} if body is None else body),
        timeouts=timeouts or Timeouts(20, 20, 20, 40),
        on_text=heard,
        **{"api_key": "key", "request_id": "job.1", "output_bytes_max": 100_000, "est_input_tokens": 9} | fields,
    )

    async def run():
        providers = OpenAIProviders(calls_max=1)
        try:
            return await providers.run(call)
        finally:
            await providers.close()

    return asyncio.run(run()), texts


def answered(pieces, **options):
    with scripted(pieces) as provider:
        outcome, _ = called(provider.url, **options)
    return outcome


def test_what_was_asked_is_sent_as_it_was_asked():
    body = {
        "zeta": 1, "messages": [{"content": "hi ü 🙂", "role": "user", "weird": None}], "temperature": 0.1,
        "alpha": {"b": [1.0, 1e-7, 12345678901234567890], "a": True}, "unknown_field": "kept",
    }  # fmt: skip
    with scripted(stream_answer(*said("x"))) as provider:
        called(provider.url, body)
    [request] = provider.requests
    sent = request.json()
    own = {"model": "upstream", "stream": True, "stream_options": {"include_usage": True}}
    assert sent == body | own
    assert [key for key in sent if key in body] == list(body), "models notice the order of keys"
    assert list(sent["alpha"]) == ["b", "a"] and list(sent["messages"][0]) == ["content", "role", "weird"]


def test_a_body_that_wants_no_stream_gets_none():
    with scripted(json_answer(WHOLE)) as provider:
        outcome, texts = called(provider.url, {"messages": [], "stream": False})
    assert provider.requests[0].json() == {"model": "upstream", "messages": [], "stream": False}
    assert (outcome.kind, outcome.output_text, texts) == (Kind.COMPLETED, "Hello", ["Hello"])


def test_a_body_s_own_stream_options_are_kept():
    with scripted(stream_answer(*said("x"))) as provider:
        called(provider.url, {"messages": [], "stream_options": {"include_obfuscation": False}})
    assert provider.requests[0].json()["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_each_endpoint_is_called_at_its_path_with_key_and_id(endpoint):
    with scripted(json_answer({"object": "list", "data": []})) as provider:
        called(provider.url, {"input": "x"}, endpoint=endpoint, api_key="s3cret")
    [request] = provider.requests
    assert request.path == endpoint
    assert request.headers["authorization"] == "Bearer s3cret"
    assert request.headers["x-client-request-id"] == "job.1"


def test_the_output_of_a_plain_answer_is_what_came_to_the_byte():
    raw = b'{"usage": {"prompt_tokens":3,"completion_tokens":2},\n  "choices": [{"message": {"content": "H\\u00e9"}}]}'
    outcome = answered(json_answer(raw, headers="x-request-id: req_7\r\n"), body={"messages": [], "stream": False})
    assert outcome.output == raw.decode() and outcome.output_text == "Hé"
    assert outcome.provider_request_id == "req_7"
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 2)


def test_a_streamed_answer_comes_out_like_a_plain_one():
    with scripted(stream_answer(*said("Hel", "lo", usage=USAGE))) as provider:
        outcome, texts = called(provider.url)
    assert (outcome.kind, outcome.output_text, "".join(texts)) == (Kind.COMPLETED, "Hello", "Hello")
    assert json.loads(outcome.output)["choices"][0]["message"]["content"] == "Hello"
    assert outcome.usage.raw == USAGE and (outcome.usage.input_tokens, outcome.usage.output_tokens) == (3, 2)


def test_a_provider_that_does_not_stream_though_asked_is_understood():
    outcome = answered(json_answer(WHOLE))
    assert (outcome.kind, outcome.output_text) == (Kind.COMPLETED, "Hello")


def test_without_usage_the_pieces_are_counted():
    outcome = answered(stream_answer(*said("a", "b", "c")))
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.raw) == (9, 3, None)


def test_a_stream_without_its_end_is_unknown_and_keeps_what_came():
    outcome = answered(stream_answer(*said("Hel", "lo")[:-1]))
    assert (outcome.kind, outcome.error.code, outcome.output) == (Kind.UNKNOWN, "stream_truncated", None)
    assert outcome.output_text == "Hello"
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (9, 2)


def test_a_stream_that_is_reset_is_unknown_and_keeps_what_came():
    heard = threading.Event()  # a reset may overtake what was sent before
    outcome = answered(stream_answer(*said("Hello")[:-1], end=[heard, RESET]), on_text=heard.set)
    assert (outcome.kind, outcome.error.code, outcome.output_text) == (Kind.UNKNOWN, "connection_lost", "Hello")


def test_a_finished_answer_is_complete_though_its_connection_stays_open():
    never = threading.Event()
    outcome = answered(stream_answer(*said("Hello"), end=[never]), timeouts=Timeouts(60, 60, 60, 60))
    never.set()
    assert (outcome.kind, outcome.output_text) == (Kind.COMPLETED, "Hello")
    assert outcome.sent_ago_s < PATIENCE_S, "a slot waits for nothing more: the provider holds it open for longer"


def test_a_finished_answer_is_complete_though_its_connection_is_reset():
    outcome = answered(stream_answer(*said("Hello"), end=[RESET]))
    assert (outcome.kind, outcome.output_text) == (Kind.COMPLETED, "Hello")


def test_what_comes_after_the_end_is_no_part_of_the_answer():
    with scripted(stream_answer(*said("Hello"), *said(" again"))) as provider:
        outcome, texts = called(provider.url)
    assert (outcome.output_text, "".join(texts)) == ("Hello", "Hello")
    assert json.loads(outcome.output)["choices"][0]["message"]["content"] == "Hello"


def test_an_error_in_a_stream_is_told_by_its_code_and_keeps_what_came_before():
    error = {"error": {"code": "server_error", "type": "server_error", "message": "sorry"}}
    in_one_packet = b"".join(stream_answer(*said("Hel", "lo")[:-2], error))
    with scripted([in_one_packet]) as provider:
        outcome, texts = called(provider.url)
    assert (outcome.kind, outcome.error.code, outcome.error.message) == (Kind.UNKNOWN, "server_error", "sorry")
    assert (outcome.output_text, "".join(texts)) == ("Hello", "Hello")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("context_length_exceeded", Kind.DETERMINISTIC),
        ("insufficient_quota", Kind.PROVIDER_REFUSED),
        ("rate_limit_exceeded", Kind.REJECTED),
        (None, Kind.UNKNOWN),
    ],
)
def test_an_error_in_a_stream_means_what_its_code_means(code, kind):
    assert answered(stream_answer({"error": {"code": code, "message": "x"}})).kind is kind


def test_a_code_of_any_length_can_be_kept():
    outcome = answered(stream_answer({"error": {"code": "x" * 500, "message": "y" * 9_000}}))
    assert len(outcome.error.code) <= 128 and len(outcome.error.message) <= 2_000


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe{}", b'{"choices": NaN}', b"[" * 50_000, b'{"x": 1e999}'],
)
def test_an_answer_that_is_no_json_object_is_unknown(raw):
    outcome = answered(json_answer(raw), body={"messages": [], "stream": False})
    assert (outcome.kind, outcome.error.code) == (Kind.UNKNOWN, "malformed_response")


@pytest.mark.parametrize(
    "event", [b"{", b"[]", b"7", b'{"choices": 5}', b'{"choices": [{"delta": "text"}]}', b'{"x": 1e999}']
)
def test_a_stream_of_something_else_is_unknown(event):
    outcome = answered(stream_answer(*said("Hel")[:-2], event, b"[DONE]"))
    assert (outcome.kind, outcome.error.code, outcome.output_text) == (Kind.UNKNOWN, "malformed_response", "Hel")


@pytest.mark.parametrize(
    "content",
    ["\\ud83d", "a\\u0000b", "\\ud83d\\ude42"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_the_output_of_a_completed_call_is_json_that_can_be_sent_on(content, stream):
    raw = b'{"choices": [{"index": 0, "message": {"content": "%s"}, "delta": {"content": "%s"}}]}' % (
        (content.encode(),) * 2
    )
    pieces = stream_answer(raw, b"[DONE]") if stream else json_answer(b"\xef\xbb\xbf" + raw)
    outcome = answered(pieces, body={"messages": [], "stream": stream})
    assert outcome.kind is Kind.COMPLETED
    json.dumps(json.loads(clean(outcome.output)), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 1, "completion_tokens": 1, "note": "\0"},
        {"prompt_tokens": 1, "completion_tokens": 1, "\ud800": 1},
        {"prompt_tokens": 1, "completion_tokens": 1, "deep": json.loads("[" * 300 + "]" * 300)},
        {"prompt_tokens": 1, "completion_tokens": 1, "long": "x" * 50_000},
    ],
)
def test_a_usage_that_can_not_be_stored_is_reduced_to_its_tokens(usage):
    outcome = answered(stream_answer(*said("a", usage=usage)))
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.raw) == (1, 1, None)


def test_a_response_that_failed_is_an_error_with_its_code():
    body = {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "x"}}
    outcome = answered(json_answer(body), endpoint=Endpoint.RESPONSES, body={"input": "x", "stream": False})
    assert (outcome.kind, outcome.error.code) == (Kind.UNKNOWN, "server_error")


def test_a_response_that_failed_without_saying_why_is_unknown():
    outcome = answered(
        json_answer({"status": "failed"}), endpoint=Endpoint.RESPONSES, body={"input": "x", "stream": False}
    )
    assert outcome.kind is Kind.UNKNOWN


def test_an_answer_that_never_stops_is_cut():
    outcome = answered(stream_answer(*said(*["x" * 1_000] * 30)), output_bytes_max=20_000)
    assert (outcome.kind, outcome.error.code) == (Kind.UNKNOWN, "malformed_response")
    assert len(outcome.output_text) <= 20_000


@pytest.mark.parametrize("status", [301, 307])
def test_a_redirect_is_not_followed(status):
    with scripted(json_answer({}, status, "location: http://127.0.0.1:1/\r\n")) as provider:
        outcome, _ = called(provider.url)
    assert outcome.kind is Kind.UNRECOGNISED and len(provider.requests) == 1


def test_an_error_status_is_told_with_code_words_and_request_id():
    error = {"error": {"message": "Slow.", "type": "requests", "code": "rate_limit_exceeded"}}
    headers = "retry-after: 7\r\nx-request-id: req_9\r\n"
    outcome = answered(json_answer(error, 429, headers))
    assert (outcome.kind, outcome.retry_after_s, outcome.provider_request_id) == (Kind.REJECTED, 7, "req_9")
    assert (outcome.error.code, outcome.error.message, outcome.error.provider_status) == (
        "rate_limit_exceeded",
        "Slow.",
        429,
    )
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (0, 0), "a refused call costs nothing"


def test_a_request_larger_than_the_whole_limit_is_not_repeated():
    message = "Request too large for gpt on tokens per min (TPM): Limit 10, Requested 20. The tokens must be reduced."
    error = {"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}
    outcome = answered(json_answer(error, 429, "x-should-retry: false\r\n"))
    assert outcome.kind is Kind.DETERMINISTIC


def test_limits_are_told_as_soon_as_the_head_of_an_answer_is_there():
    """Once, before the stream's first text, which may be minutes away."""
    told = []
    head, *data = stream_answer(*said("Hello"))
    head = head.replace(b"\r\n\r\n", b"\r\nx-ratelimit-limit-requests: 60\r\nx-ratelimit-remaining-requests: 7\r\n\r\n")
    with scripted([head, *data]) as provider:
        outcome, _ = called(provider.url, on_told=told.append, on_text=lambda: told.append("text"))
    assert told == [Told(60, 7), "text"]
    assert (outcome.kind, outcome.told) == (Kind.COMPLETED, Told(60, 7))


def test_a_refusal_tells_the_limits_too():
    told = []
    headers = "retry-after: 7\r\nx-ratelimit-limit-tokens: 60\r\nx-ratelimit-remaining-tokens: -1\r\n"
    outcome = answered(json_answer({}, 429, headers), on_told=told.append)
    assert told == [Told(tokens_limit=60, wait_s=7, lies=1)]
    assert (outcome.told, outcome.retry_after_s) == (told[0], 7)


def test_a_call_that_was_not_answered_tells_no_limits():
    told = []
    outcome, _ = called("http://127.0.0.1:9/v1", on_told=told.append)
    assert (told, outcome.told) == ([], None)


@pytest.mark.parametrize(
    "body", [b"", b"<html>bad</html>", b"[1]", b'{"error": "words"}', b'{"error": null}', b'{"error": {"code": 5}}']
)
def test_an_error_status_with_any_body_is_understood(body):
    outcome = answered(json_answer(body, 500))
    assert outcome.kind is Kind.UNKNOWN and outcome.error.provider_status == 500 and outcome.error.code


def test_no_listener_is_not_sent():
    outcome, _ = called("http://127.0.0.1:9/v1")
    assert (outcome.kind, outcome.error.code) == (Kind.NOT_SENT, "connection_failed")
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (0, 0)


def test_a_name_that_does_not_resolve_is_not_sent():
    outcome, _ = called("http://no-such-host.invalid/v1")
    assert outcome.kind is Kind.NOT_SENT


def test_a_connection_closed_without_an_answer_is_unknown():
    outcome = answered([b"", b"connection: close"[:0], RESET])
    assert outcome.kind is Kind.UNKNOWN and outcome.usage is None, "it may have been billed: the estimate stands"


@pytest.mark.parametrize(
    ("timeouts", "pieces", "words"),
    [
        (Timeouts(5, 0.2, 5, 5), [threading.Event()], "first token within 0.2 s"),
        (
            Timeouts(5, 0.2, 5, 5),
            [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", threading.Event()],
            "first token",
        ),
        (Timeouts(5, 5, 0.2, 5), stream_answer(*said("a")[:2], end=[threading.Event()]), "next token within 0.2 s"),
        (Timeouts(5, 5, 5, 0.2), stream_answer(*said("a")[:2], end=[threading.Event()]), "whole answer within 0.2 s"),
    ],
)
def test_each_silence_has_its_own_timeout_and_says_so(timeouts, pieces, words):
    outcome = answered(pieces, timeouts=timeouts)
    for piece in pieces:
        if isinstance(piece, threading.Event):
            piece.set()
    assert (outcome.kind, outcome.error.code) == (Kind.UNKNOWN, "timeout")
    assert words in outcome.error.message
    assert outcome.sent_ago_s > 0.15


def test_a_slow_stream_lives_as_long_as_it_says_something():
    """The timeout between tokens begins anew with each."""
    pauses = [threading.Event() for _ in range(4)]
    for at, pause in enumerate(pauses, start=1):
        threading.Timer(0.25 * at, pause.set).start()
    head, *data = stream_answer(*said("a", "b"))
    pieces = [head, *(piece for pair in zip(pauses, data[:4], strict=True) for piece in pair), *data[4:]]
    outcome = answered(pieces, timeouts=Timeouts(5, 0.9, 0.6, 5))
    assert (outcome.kind, outcome.output_text) == (Kind.COMPLETED, "ab")


@pytest.mark.parametrize("key", ["schlüssel", "line\nbreak"])
def test_a_key_that_no_header_can_carry_is_not_sent(key):
    with scripted(json_answer(WHOLE)) as provider:
        outcome, _ = called(provider.url, api_key=key)
    assert outcome.kind in (Kind.NOT_SENT, Kind.PROVIDER_REFUSED) and not provider.requests
