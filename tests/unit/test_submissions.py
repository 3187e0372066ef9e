"""What may be asked for: each wrong field is named, with what was expected and what came."""

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmjobs.conf import conf
from llmjobs.errors import InvalidRequest, RequestTooLarge
from llmjobs.estimates import estimate
from llmjobs.states import Endpoint, Priority
from llmjobs.submissions import FIELDS, parse

HELLO = [{"role": "user", "content": "Hello."}]
GOOD = {"model": "m", "messages": HELLO}


def nested(depth, value="x"):
    for _ in range(depth):
        value = [value]
    return value


def refused(data, kind=InvalidRequest):
    with pytest.raises(kind) as caught:
        parse(data)
    assert caught.value.message and len(caught.value.message) < 1_000
    return caught.value


def test_the_least_that_can_be_asked_gets_every_default():
    asked = parse(GOOD)
    assert (asked.endpoint, asked.model, asked.priority) == (Endpoint.CHAT, "m", Priority.NORMAL)
    assert json.loads(asked.body) == {"messages": HELLO}
    assert (asked.delay_s, asked.expires_in_s, asked.timeout_s) == (0, None, conf.timeout_s)
    assert (asked.max_attempts, asked.retry_for_s, asked.max_cost_usd) == (conf.max_attempts, conf.retry_for_s, None)
    assert (asked.user, asked.metadata) == (None, {})


def test_a_whole_number_is_one_however_json_writes_it():
    asked = parse(GOOD | {"max_attempts": 3.0})
    assert (asked.max_attempts, type(asked.max_attempts)) == (3, int)


def test_everything_that_can_be_asked_is_kept():
    asked = parse(
        GOOD
        | {
            "priority": "high", "delay_s": 1.5, "expires_in_s": 60, "timeout_s": 7, "max_attempts": 2, "retry_for_s": 0,
            "max_cost_usd": 0.25, "user": "u", "metadata": {"k": "v"}, "on_interrupt": "restart",
            "when_limited": "reject", "dedupe": None, "webhook_url": None,
        }
    )  # fmt: skip
    assert (asked.priority, asked.delay_s, asked.expires_in_s, asked.timeout_s) == (1, 1.5, 60, 7)
    assert (asked.max_attempts, asked.retry_for_s, asked.max_cost_usd) == (2, 0, Decimal("0.25"))
    assert (asked.user, asked.metadata, asked.is_rejected_when_limited) == ("u", {"k": "v"}, True)


@pytest.mark.parametrize("value", [None, "wait"])
def test_who_does_not_say_otherwise_waits(value):
    assert parse(GOOD | {"when_limited": value}).is_rejected_when_limited is False


@pytest.mark.parametrize("value", ["Reject", "", True, 1, ["reject"]])
def test_another_word_for_it_is_none(value):
    error = refused(GOOD | {"when_limited": value})
    assert error.param == "when_limited" and '"wait" or "reject"' in error.message


@pytest.mark.parametrize(
    ("data", "endpoint", "body"),
    [
        ({"messages": HELLO}, Endpoint.CHAT, {"messages": HELLO}),
        ({"input": "hi"}, Endpoint.RESPONSES, {"input": "hi"}),
        ({"input": "hi", "endpoint": "/v1/embeddings"}, Endpoint.EMBEDDINGS, {"input": "hi"}),
        ({"body": {"messages": HELLO, "n": 2}}, Endpoint.CHAT, {"messages": HELLO, "n": 2}),
        ({"body": {"input": "hi", "model": "m"}}, Endpoint.RESPONSES, {"input": "hi"}),
        ({"body": {"prompt": {"id": "pmpt_1"}}}, Endpoint.RESPONSES, {"prompt": {"id": "pmpt_1"}}),
    ],
)
def test_the_endpoint_follows_from_what_is_given(data, endpoint, body):
    asked = parse({"model": "m"} | data)
    assert (asked.endpoint, json.loads(asked.body)) == (endpoint, body)


def test_the_order_of_the_provider_s_keys_is_kept():
    body = {"zeta": 1, "messages": HELLO, "alpha": {"b": 1, "a": 2}}
    assert parse({"model": "m", "body": body}).body == json.dumps(body, separators=(",", ":"))


@pytest.mark.parametrize("word", [priority.word for priority in Priority])
def test_a_priority_may_be_a_word_or_its_number(word):
    number = Priority[word.upper()]
    assert parse(GOOD | {"priority": word}).priority == parse(GOOD | {"priority": int(number)}).priority == number


WRONG = [
    ({"model": None}, "model", "missing_required_parameter"),
    ({"model": 5}, "model", "invalid_type"),
    ({"model": ""}, "model", "invalid_length"),
    ({"model": "m" * 129}, "model", "invalid_length"),
    ({"model": "m\0"}, "model", "invalid_text"),
    ({"model": "\ud800"}, "model", "invalid_text"),
    ({"messages": None}, "messages", "missing_required_parameter"),
    ({"messages": []}, "messages", "empty"),
    ({"messages": {}}, "messages", "invalid_type"),
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": HELLO * 2_001}, "messages", "too_many"),
    ({"messages": [*HELLO, "hi"]}, "messages[1]", "invalid_type"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role", "invalid_type"),
    ({"messages": [{"role": 5}]}, "messages[0].role", "invalid_type"),
    ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content", "invalid_text"),
    ({"messages": [{"role": "user", "content": "\udc00"}]}, "messages[0].content", "invalid_text"),
    ({"messages": [{"role": "user", "a\0": 1}]}, "messages[0]", "invalid_text"),
    ({"messages": [{"role": "user", 5: 1}]}, "messages[0]", "invalid_type"),
    ({"messages": [{"role": "user", "content": float("nan")}]}, "messages", "invalid_json"),
    ({"messages": [{"role": "user", "content": float("inf")}]}, "messages", "invalid_json"),
    ({"messages": [{"role": "user", "content": 10**5_000}]}, "messages", "invalid_json"),
    ({"messages": [{"role": "user", "content": {1, 2}}]}, "messages", "invalid_json"),
    ({"messages": [{"role": "user", "content": nested(101)}]}, "messages", "too_deep"),
    ({"messages": [{"role": "user", "content": nested(5_000)}]}, "messages", "too_deep"),
    ({"messages": [{"role": "user", "content": ("\0",)}]}, "messages[0].content[0]", "invalid_text"),
    ({"priority": nested(5_000)}, "priority", "invalid_value"),
    ({"input": "hi"}, "input", "conflicting_parameters"),
    ({"body": {"messages": HELLO}}, "body", "conflicting_parameters"),
    ({"endpoint": "/v1/nothing"}, "endpoint", "invalid_value"),
    ({"endpoint": ["/v1/responses"]}, "endpoint", "invalid_value"),
    ({"endpoint": "/v1/responses"}, "input", "missing_required_parameter"),
    ({"priority": "urgent"}, "priority", "invalid_value"),
    ({"priority": 2}, "priority", "invalid_value"),
    ({"priority": True}, "priority", "invalid_value"),
    ({"priority": 1.0}, "priority", "invalid_value"),
    ({"priority": []}, "priority", "invalid_value"),
    ({"delay_s": "5"}, "delay_s", "invalid_type"),
    ({"delay_s": True}, "delay_s", "invalid_type"),
    ({"delay_s": -1}, "delay_s", "invalid_value"),
    ({"delay_s": float("nan")}, "delay_s", "invalid_value"),
    ({"delay_s": float("inf")}, "delay_s", "invalid_value"),
    ({"delay_s": 10**400}, "delay_s", "invalid_value"),
    ({"delay_s": 31 * 86_400}, "delay_s", "invalid_value"),
    ({"expires_in_s": 0}, "expires_in_s", "invalid_value"),
    ({"timeout_s": 0}, "timeout_s", "invalid_value"),
    ({"timeout_s": 3_601}, "timeout_s", "invalid_value"),
    ({"max_attempts": 0}, "max_attempts", "invalid_value"),
    ({"max_attempts": 21}, "max_attempts", "invalid_value"),
    ({"max_attempts": 1.5}, "max_attempts", "invalid_type"),
    ({"max_attempts": True}, "max_attempts", "invalid_type"),
    ({"max_attempts": 10**5_000}, "max_attempts", "invalid_value"),
    ({"retry_for_s": -1}, "retry_for_s", "invalid_value"),
    ({"max_cost_usd": 0}, "max_cost_usd", "invalid_value"),
    ({"max_cost_usd": "1"}, "max_cost_usd", "invalid_type"),
    ({"max_cost_usd": 1e9}, "max_cost_usd", "invalid_value"),
    ({"user": 5}, "user", "invalid_type"),
    ({"user": ""}, "user", "invalid_length"),
    ({"user": "u" * 257}, "user", "invalid_length"),
    ({"user": "\0"}, "user", "invalid_text"),
    ({"metadata": []}, "metadata", "invalid_type"),
    ({"metadata": {"k": 5}}, "metadata.k", "invalid_type"),
    ({"metadata": {5: "v"}}, "metadata", "invalid_type"),
    ({"metadata": {"": "v"}}, "metadata", "too_long"),
    ({"metadata": {"k" * 65: "v"}}, "metadata", "too_long"),
    ({"metadata": {"k": "v" * 513}}, "metadata.k", "too_long"),
    ({"metadata": {"k": "\0"}}, "metadata.k", "invalid_text"),
    ({"metadata": {"\ud800": "v"}}, "metadata", "invalid_text"),
    ({"metadata": {str(n): "v" for n in range(17)}}, "metadata", "too_many"),
    ({"metadata": {"k": nested(5_000)}}, "metadata", "too_deep"),
    ({"on_interrupt": "resume"}, "on_interrupt", "invalid_value"),
    ({"temperature": 1}, "temperature", "unknown_parameter"),
    ({"mesages": HELLO}, "mesages", "unknown_parameter"),
]


@pytest.mark.parametrize(
    ("wrong", "param", "code"), WRONG, ids=[f"{n}-{param}-{code}" for n, (_, param, code) in enumerate(WRONG)]
)
def test_a_wrong_field_is_named(wrong, param, code):
    error = refused(GOOD | wrong)
    assert (error.param, error.code, error.status) == (param, code, 400)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ([], "body", "invalid_type"),
        ({}, "body.input", "missing_required_parameter"),
        ({"messages": []}, "body.messages", "empty"),
        ({"messages": ["x"]}, "body.messages[0]", "invalid_type"),
        ({"messages": HELLO, "model": "other"}, "body.model", "conflicting_parameters"),
        ({"messages": HELLO, "stream": "yes"}, "body.stream", "invalid_type"),
        ({"messages": HELLO, "x": {"y": ["\0"]}}, "body.x.y[0]", "invalid_text"),
        ({"messages": HELLO, "x": nested(200)}, "body", "too_deep"),
    ],
)
def test_a_wrong_field_of_the_body_is_named_by_its_path(body, param, code):
    error = refused({"model": "m", "body": body})
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize("data", [None, [], "text", 5, True])
def test_what_is_no_object_is_refused(data):
    assert refused(data).code == "invalid_type"


def test_too_large_a_body_is_another_error(settings):
    settings.LLMJOBS_BODY_MAX_BYTES = 1_024
    text = "ü" * 600  # 1,200 bytes in fewer characters
    assert refused({"model": "m", "input": text}, RequestTooLarge).status == 413
    parse({"model": "m", "input": "u" * 600})


def test_a_request_of_a_sane_depth_is_taken():
    schema = {"type": "string"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"inner": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    parse({"model": "m", "body": {"messages": HELLO, "tools": [tool]}})


def test_equal_requests_have_one_hash_and_others_another():
    hashed = parse(GOOD).prompt_hash
    assert hashed.startswith("sha256:") and len(hashed) == 71
    assert parse(GOOD | {"priority": "low"}).prompt_hash == hashed, "only the prompt counts"
    assert parse(GOOD | {"model": "other"}).prompt_hash != hashed
    assert parse({"model": "m", "messages": [*HELLO, *HELLO]}).prompt_hash != hashed


def test_the_fingerprint_is_of_the_whole_submission_whatever_the_order_of_its_keys():
    one = parse({"model": "m", "messages": HELLO, "priority": "low"}).fingerprint
    assert parse({"priority": "low", "messages": HELLO, "model": "m"}).fingerprint == one
    assert parse(GOOD | {"priority": "high"}).fingerprint != one


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("\0"), st.just("\ud800")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of the machine, when others run beside
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, max_size=6))
def test_no_submission_whatever_is_more_than_refused(data):
    """Either a Submission that can be stored and estimated, or an error that says what was expected."""
    try:
        asked = parse({"model": "m"} | data)
    except InvalidRequest as error:
        assert error.message
        return
    asked.body.encode()
    assert "\0" not in asked.body
    estimate(asked.endpoint, asked.request, output_weight=1, default_output_tokens=5, short_output_tokens=5)
