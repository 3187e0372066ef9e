"""One call to a provider with background mode: what is asked beside it, and what each answer to that comes to.

For answers that the simulator does not give.
"""

import asyncio
import json
import threading
from typing import Any

import pytest

from llmjobs.outcomes import Kind
from llmjobs.providers.calls import Timeouts
from llmjobs.states import Endpoint
from tests.worker.scripted import RESET, Request, json_answer, scripted, stream_answer
from tests.worker.test_provider_calls import called

ID = "resp_1"
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
BODY = {"input": "hello"}


def response(status: str, text: str = "", **fields: Any) -> dict[str, Any]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": text}]}] if text else []
    return {"id": ID, "object": "response", "status": status, "output": output, "error": None} | fields


def events(*texts: str, ends: bool = True, first: int = 0) -> list[dict[str, Any]]:
    """A stream that says these texts; `first`: the number of its first event."""
    said = [{"type": "response.created", "response": response("in_progress")}]
    said += [{"type": "response.output_text.delta", "delta": text} for text in texts]
    if ends:
        whole = response("completed", "".join(texts), usage=USAGE)
        said.append({"type": "response.completed", "response": whole})
    return [event | {"sequence_number": first + nth} for nth, event in enumerate(said)]


def asked(answers: dict[str, Any], **options: Any) -> tuple[Any, list[str], list[str]]:
    """(outcome, texts, what was asked). `answers`: by the start of a path, the longest first; of POST: "post"."""
    ids: list[str] = []

    def answer(request: Request) -> Any:
        if request.path == Endpoint.RESPONSES:
            return answers["post"]
        rest = request.path.removeprefix(f"{Endpoint.RESPONSES}/{ID}")
        return next(answers[key] for key in sorted(answers, key=len, reverse=True) if rest.startswith(key))

    with scripted(answer) as provider:
        options = {"has_background": True, "on_response": ids.append} | options
        outcome, texts = called(provider.url, BODY, endpoint=Endpoint.RESPONSES, **options)
        paths = [request.path.removeprefix(Endpoint.RESPONSES) for request in provider.requests]
        assert {request.headers["x-client-request-id"] for request in provider.requests} == {"job.1"}
        posts = [request.json() for request in provider.requests if request.path == Endpoint.RESPONSES]
        assert all(post["background"] is True and post["stream"] is True for post in posts)
    return outcome, texts, paths


def test_the_id_is_told_once_and_before_the_first_text():
    told = []
    answers = {"post": stream_answer(*events("Hel", "lo"))}
    outcome, _, _ = asked(answers, on_response=told.append, on_text=lambda: told.append("text"))
    assert (outcome.kind, told[0], told.count(ID)) == (Kind.COMPLETED, ID, 1)


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_response_that_has_ended_is_taken_as_it_is(status):
    outcome, texts, paths = asked({"": json_answer(response(status, "Hello", usage=USAGE))}, resume_id=ID)
    assert (outcome.kind, outcome.output_text, texts, paths) == (Kind.COMPLETED, "Hello", ["Hello"], [f"/{ID}"])
    assert (outcome.usage.output_tokens, json.loads(outcome.output)["status"]) == (2, status)


def test_a_response_that_goes_on_is_followed_from_its_start():
    answers = {"": json_answer(response("in_progress")), "?stream=true": stream_answer(*events("Hel", "lo"))}
    outcome, texts, paths = asked(answers, resume_id=ID)
    assert (outcome.kind, "".join(texts), paths) == (Kind.COMPLETED, "Hello", [f"/{ID}", f"/{ID}?stream=true"])


@pytest.mark.parametrize(
    "look",
    [
        *(json_answer({"error": {"code": "x", "message": "y"}}, status) for status in (400, 404, 410)),
        json_answer(response("cancelled")),
        json_answer(response("failed", error={"code": "server_error", "message": "sorry"})),
        json_answer({"object": "something else"}),
    ],
)
def test_a_response_that_is_gone_is_made_anew(look):
    outcome, texts, paths = asked({"": look, "post": stream_answer(*events("Hello"))}, resume_id=ID)
    assert (outcome.kind, "".join(texts), paths) == (Kind.COMPLETED, "Hello", [f"/{ID}", ""])


def test_a_response_that_can_not_be_followed_is_stopped_and_made_anew():
    answers = {
        "": json_answer(response("in_progress")), "?stream": json_answer({}, 400),
        "/cancel": json_answer(response("cancelled", usage={"input_tokens": 90, "output_tokens": 90})),
        "post": stream_answer(*events("Hello", "!")[:-1]),
    }  # fmt: skip
    outcome, texts, paths = asked(answers, resume_id=ID)
    assert paths[:4] == [f"/{ID}", f"/{ID}?stream=true", f"/{ID}/cancel", ""]
    assert ("".join(texts), outcome.usage.output_tokens) == ("Hello!", 2), "its own, not what the other had used"


def test_a_response_that_failed_for_good_is_not_made_anew():
    error = {"code": "context_length_exceeded", "message": "too long"}
    outcome, _, paths = asked({"": json_answer(response("failed", error=error))}, resume_id=ID)
    assert (outcome.kind, outcome.error.code) == (Kind.DETERMINISTIC, "context_length_exceeded")
    assert paths[0] == f"/{ID}" and "" not in paths


@pytest.mark.parametrize(("status", "kind"), [(500, Kind.UNKNOWN), (429, Kind.REJECTED), (401, Kind.PROVIDER_REFUSED)])
def test_a_provider_that_does_not_say_how_a_response_stands_is_asked_again_later_for_nothing(status, kind):
    outcome, _, paths = asked({"": json_answer({}, status)}, resume_id=ID)
    assert (outcome.kind, paths) == (kind, [f"/{ID}"])
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (0, 0), "whoever sees its end pays for it"


def test_what_is_told_twice_after_a_break_is_taken_once():
    """A provider that begins anew though it was asked for the rest."""
    answers = {"post": stream_answer(*events("Hel", ends=False)), "?stream=true": stream_answer(*events("Hel", "lo"))}
    outcome, texts, paths = asked(answers)
    assert (outcome.kind, outcome.output_text, texts) == (Kind.COMPLETED, "Hello", ["Hel", "lo"])
    assert paths == ["", f"/{ID}?stream=true&starting_after=1"]


def test_half_an_event_before_a_break_is_asked_for_again():
    broken = [*stream_answer(*events("Hel", ends=False)), b'data: {"type": "response.output_te']
    answers = {"post": broken, "?stream=true": stream_answer(*events("Hel", "lo"))}
    assert asked(answers)[0].output_text == "Hello"


def test_a_stream_that_breaks_twice_is_left_to_another_attempt_and_costs_nothing_yet():
    broken = stream_answer(*events("Hel", ends=False))
    outcome, _, paths = asked({"post": broken, "?stream=true": [*broken, RESET]}, keeps_partial=True)
    assert (outcome.kind, outcome.output_text, len(paths)) == (Kind.UNKNOWN, "Hel", 2)
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (0, 0)
    assert outcome.partial is None, "what is there to keep, if it can be had whole?"


def test_the_last_attempt_leaves_nothing_running_and_is_paid():
    broken = stream_answer(*events("Hel", ends=False))
    cancelled = json_answer(response("cancelled", usage=USAGE))
    outcome, _, paths = asked({"post": broken, "?stream": broken, "/cancel": cancelled}, is_last=True)
    assert (outcome.kind, paths[-1]) == (Kind.UNKNOWN, f"/{ID}/cancel")
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.raw) == (3, 2, USAGE)


def test_a_response_that_is_gone_after_a_break_costs_what_it_said():
    broken = stream_answer(*events("Hel", ends=False))
    outcome, _, paths = asked({"post": broken, "?stream": json_answer({}, 404)})
    assert (outcome.kind, outcome.error.code, len(paths)) == (Kind.UNKNOWN, "stream_truncated", 2)
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (9, 1)


def test_a_response_that_ended_just_before_its_cancel_is_the_answer():
    """The stream was too slow to tell; the whole is there, and viewers get the rest."""
    stuck = stream_answer(*events("Hel", ends=False), end=[threading.Event()])
    whole = json_answer(response("completed", "Hello", usage=USAGE))
    outcome, texts, paths = asked({"post": stuck, "/cancel": whole}, timeouts=Timeouts(5, 5, 0.3, 5))
    stuck[-1].set()
    assert (outcome.kind, outcome.output_text, texts) == (Kind.COMPLETED, "Hello", ["Hel", "lo"])
    assert paths == ["", f"/{ID}/cancel"]


def test_a_response_that_is_announced_has_the_time_of_a_first_token_to_begin():
    """It may be queued at the provider for longer than a stream may be silent."""
    begin = threading.Event()
    head, created, *rest = stream_answer(*events("Hello"))
    answers = {"post": [head, created, begin, *rest]}
    outcome, _, paths = asked(
        answers, timeouts=Timeouts(5, 5, 0.3, 5), on_response=lambda _: threading.Timer(0.6, begin.set).start()
    )
    assert (outcome.kind, paths) == (Kind.COMPLETED, [""])
    assert outcome.sent_ago_s - outcome.first_token_ago_s > 0.5, "what was announced is no token"


def test_a_worker_that_stood_still_does_not_end_a_response_that_may_be_another_s():
    stuck = stream_answer(*events("Hel", ends=False), end=[threading.Event()])

    def freeze(_: str) -> None:
        asyncio.get_running_loop().call_later(0.1, threading.Event().wait, 1.6)

    outcome, _, paths = asked({"post": stuck}, timeouts=Timeouts(5, 5, 0.4, 5), on_response=freeze)
    stuck[-1].set()
    assert (outcome.kind, outcome.error.code, paths) == (Kind.UNKNOWN, "timeout", [""])
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (0, 0)


@pytest.mark.parametrize("cancel", [json_answer({}, 500), [RESET], json_answer(b"{")])
def test_a_cancel_that_fails_changes_nothing(cancel):
    malformed = stream_answer(*events("Hel", ends=False), b"{")
    outcome, _, _ = asked({"post": malformed, "/cancel": cancel})
    assert (outcome.kind, outcome.error.code, outcome.usage.output_tokens) == (Kind.UNKNOWN, "malformed_response", 1)


def test_a_provider_that_does_not_stream_though_asked_is_followed():
    answers = {"post": json_answer(response("queued")), "?stream=true": stream_answer(*events("Hello"))}
    outcome, texts, paths = asked(answers)
    assert (outcome.kind, "".join(texts), paths) == (Kind.COMPLETED, "Hello", ["", f"/{ID}?stream=true"])


@pytest.mark.parametrize("id", ["../files", "x" * 300, "", 7, None])
def test_an_id_that_fits_in_no_path_is_none(id):
    told = []
    odd = [
        event | ({"response": event["response"] | {"id": id}} if "response" in event else {}) for event in events("x")
    ]
    outcome, _, paths = asked({"post": stream_answer(*odd)}, on_response=told.append)
    assert (outcome.kind, told, paths) == (Kind.COMPLETED, [], [""])


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.EMBEDDINGS])
def test_other_endpoints_know_no_background(endpoint):
    with scripted(json_answer({"object": "list", "data": []})) as provider:
        called(provider.url, BODY, endpoint=endpoint, has_background=True, resume_id=ID)
    [request] = provider.requests
    assert request.path == endpoint and "background" not in request.json()
