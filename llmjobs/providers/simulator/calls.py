"""One call as it was asked for: the body, the `x-sim-*` headers and the directives in the prompt, read and
checked.

Owns what a request means. Does not answer it, and does not look at a limit or at the faults that are on for
all.
A directive is `[[name=value]]` in the last user message (for embeddings: in the last input):

    [[tokens=50]]          this many output tokens; else by the prompt's hash, 20 to 120. The body's maximum
                           caps them either way. Also `x-sim-output-tokens`
    [[ttft_ms=300]]        time to first token; also `x-sim-ttft-ms`
    [[tokens_per_s=20]]    0: as fast as can be; also `x-sim-tokens-per-s`
    [[fault=name:2]]       see faults.py; also `x-sim-fault`, and the models `sim-<fault>` and `<any>@<fault>`
    [[tool_calls=2]]       calls this many of the functions that the body offers; `tool_choice` can demand one
    [[refusal]]            refuses, politely
    [[stamp]]              each token of a stream is the Unix time at which it is sent, and a space

A header wins over a directive, a directive over the model's name. Double brackets around any other name are
text.
Invariant: a Call is complete and within bounds; whatever is not raises BadRequest, which names the field.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmjobs.providers.simulator import fields
from llmjobs.providers.simulator.faults import FAULTS, Fault, parse_orders
from llmjobs.providers.simulator.fields import BadRequest
from llmjobs.providers.simulator.speech import Said, say
from llmjobs.providers.simulator.words import seed_of, tokens_in

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
ENDPOINTS = frozenset((CHAT, RESPONSES, EMBEDDINGS))
INPUTS_MAX = 2048  # texts in one embeddings call, as OpenAI has it

_DIRECTIVE = re.compile(r"\[\[(tokens|ttft_ms|tokens_per_s|fault|tool_calls|refusal|stamp)(?:=([^\]]*))?\]\]")
_CAPS = {CHAT: ("max_completion_tokens", "max_tokens"), RESPONSES: ("max_output_tokens",), EMBEDDINGS: ()}
_CAP_MAX = 10_000_000


@dataclass(frozen=True, slots=True)
class Call:
    endpoint: str
    model: str
    body: Mapping[str, Any]
    is_stream: bool
    in_background: bool  # goes on without a viewer
    seed: bytes  # stands for the prompt
    inputs: tuple[str, ...]  # the texts to embed
    choices: tuple[Said, ...]  # what is said; empty for embeddings
    input_tokens: int
    max_tokens: int | None  # the body's cap, of one choice
    orders: tuple[Fault, ...]
    ttft_ms: float | None  # None: as it is set for all
    tokens_per_s: float | None

    @property
    def output_tokens(self) -> int:
        return sum([len(said.tokens) for said in self.choices])

    @property
    def prompt_param(self) -> str:
        return "messages" if self.endpoint == CHAT else "input"


def open_body(raw: bytes) -> tuple[dict[str, Any], str]:
    """The body of a request, and its model: what must be known before anything else. Raises BadRequest."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest(
            "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload, "
            "but what was sent was not valid JSON."
        ) from None
    if not isinstance(body, dict):
        raise BadRequest(f"Expected a JSON object as body, got {fields.kind(body)}.")
    model = body.get("model")
    if not model:
        raise BadRequest("You must provide a model parameter.", param="model", code="missing_required_parameter")
    if not isinstance(model, str):
        raise fields.wrong_type("model", "a string", model)
    return body, model


def read_call(endpoint: str, headers: Mapping[bytes, bytes], body: Mapping[str, Any], model: str) -> Call:
    """Headers have lower-case names. Raises BadRequest."""
    is_stream = body.get("stream") or False
    if not isinstance(is_stream, bool):
        raise fields.wrong_type("stream", "a boolean", is_stream)
    is_embedding = endpoint == EMBEDDINGS
    texts, last = _embedding_texts(body) if is_embedding else _prompt(endpoint, body)
    directives = dict(_DIRECTIVE.findall(last)) if "[[" in last else {}
    max_tokens = _cap(endpoint, body)
    seed = seed_of(*texts)
    choices: tuple[Said, ...] = ()
    if not is_embedding:
        wanted = headers.get(b"x-sim-output-tokens")
        choices = say(
            body, directives, seed=seed, wanted_header=wanted, max_tokens=max_tokens, is_chat=endpoint == CHAT
        )
    return Call(
        endpoint=endpoint,
        model=model,
        body=body,
        is_stream=is_stream and not is_embedding,
        in_background=endpoint == RESPONSES and _in_background(body),
        seed=seed,
        inputs=tuple(texts) if is_embedding else (),
        choices=choices,
        input_tokens=sum([tokens_in(text) for text in texts]) if is_embedding else tokens_in("".join(texts)),
        max_tokens=max_tokens,
        orders=_orders(headers, directives, model),
        ttft_ms=_knob(headers, b"x-sim-ttft-ms", directives, "ttft_ms"),
        tokens_per_s=_knob(headers, b"x-sim-tokens-per-s", directives, "tokens_per_s"),
    )


def prompt_of(call: Call) -> str:
    """All its texts, for who looks for words in them."""
    return "\n".join(_prompt(call.endpoint, call.body)[0]) if call.choices else ""


def _in_background(body: Mapping[str, Any]) -> bool:
    in_background = body.get("background") or False
    if not isinstance(in_background, bool):
        raise fields.wrong_type("background", "a boolean", in_background)
    if in_background and body.get("store") is False:
        raise BadRequest("Background mode requires store to be true.", param="background")
    return in_background


def _prompt(endpoint: str, body: Mapping[str, Any]) -> tuple[list[str], str]:
    """All texts of the prompt in order, and the one whose directives count: the last that a user said."""
    param = "messages" if endpoint == CHAT else "input"
    given = body.get(param)
    if isinstance(given, str) and endpoint == RESPONSES:
        texts, last = [given], given
    else:
        items = fields.objects(body, param)
        if not items:
            if given is None:
                raise fields.missing(param)
            message = f"Invalid '{param}': empty array. Expected an array with minimum length 1."
            raise BadRequest(message, param=param, code="empty_array")
        texts, last = [], ""
        for item in items:
            text = _text(item.get("content"))
            texts.append(text)
            if item.get("role") == "user":
                last = text
    instructions = body.get("instructions")
    return ([instructions, *texts] if isinstance(instructions, str) else texts), last


def _text(content: Any) -> str:
    """The text of a message: a string, or parts of which some are text; images and the like count nothing."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join([text for text in texts if isinstance(text, str)])


def _embedding_texts(body: Mapping[str, Any]) -> tuple[list[str], str]:
    """The texts to embed, and the last of them. A list of token ids stands for a text of as many tokens."""
    given = body.get("input")
    if isinstance(given, str) or _is_token_ids(given):
        given = [given]
    if not isinstance(given, list) or not 1 <= len(given) <= INPUTS_MAX:
        expected = f"expected a string or an array of 1 to {INPUTS_MAX} inputs"
        raise BadRequest(f"'$.input' is invalid: {expected}, got {fields.kind(given)}.", param="input")
    texts = ["".join([f"{i % 10_000:04d}" for i in item]) if _is_token_ids(item) else item for item in given]
    for text in texts:
        if not isinstance(text, str) or not text:
            raise BadRequest(
                "'$.input' is invalid: expected texts or lists of token ids that are not empty.",
                param="input",
            )
    return texts, texts[-1]


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _cap(endpoint: str, body: Mapping[str, Any]) -> int | None:
    caps = [fields.integer(body, name, 1, _CAP_MAX) for name in _CAPS[endpoint]]
    return min([cap for cap in caps if cap is not None], default=None)


def _orders(headers: Mapping[bytes, bytes], directives: Mapping[str, str], model: str) -> tuple[Fault, ...]:
    header = headers.get(b"x-sim-fault")
    if header is not None:
        source, text = "x-sim-fault", header.decode("latin-1")
    elif "fault" in directives:
        source, text = "[[fault]]", directives["fault"]
    elif "@" in model:
        source, text = "model", model.rpartition("@")[2]
    elif model.startswith("sim-") and model[4:].partition(":")[0] in FAULTS:
        source, text = "model", model[4:]
    else:
        return ()
    try:
        return parse_orders(text)
    except ValueError as error:
        raise BadRequest(f"Unknown fault in {source}: {error}.", param=source, code="invalid_fault") from None


def _knob(headers: Mapping[bytes, bytes], header: bytes, directives: Mapping[str, str], directive: str) -> float | None:
    if header in headers:
        return fields.number(header.decode(), headers[header])
    return fields.number(f"[[{directive}]]", directives[directive]) if directive in directives else None
