"""`/v1/chat/completions` written down: the completion in one piece, or as chunks.

Owns the shapes, which are OpenAI's. Invariant: put together, the chunks give the completion.
"""

from typing import Any

from llmjobs.providers.simulator.answers import Script, error_body, json_text
from llmjobs.providers.simulator.calls import Call
from llmjobs.providers.simulator.faults import SERVER_ERROR
from llmjobs.providers.simulator.fields import integer
from llmjobs.providers.simulator.speech import Said
from llmjobs.providers.simulator.words import escaped, tokens_of

TOP_LOGPROBS_MAX = 20


def whole(call: Call, number: str, created: int) -> str:
    logprobs = _top_logprobs(call)
    choices = [_choice(said, index, number, logprobs) for index, said in enumerate(call.choices)]
    completion = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": created,
        "model": call.model,
        "choices": choices,
        "usage": _usage(call),
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }
    return json_text(completion)


def script(call: Call, number: str, created: int) -> Script:
    options = call.body.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    base = (
        f'data: {{"id":"chatcmpl-{number}","object":"chat.completion.chunk","created":{created},'
        f'"model":"{escaped(call.model)}","service_tier":"default","system_fingerprint":"fp_simulated",'
    )
    last = ',"usage":null}\n\n' if with_usage else "}\n\n"
    logprobs = _top_logprobs(call)
    choices = [_ChoiceChunks(base, last, index, said, number, logprobs) for index, said in enumerate(call.choices)]
    closing = "".join([choice.closing() for choice in choices])
    if with_usage:
        closing += f'{base}"choices":[],"usage":{json_text(_usage(call))}}}\n\n'
    per_choice = [choice.events() for choice in choices]
    return Script(
        opening="".join([choice.opening() for choice in choices]),
        events=per_choice[0] if len(choices) == 1 else ["".join(step) for step in zip(*per_choice, strict=True)],
        closing=closing + "data: [DONE]\n\n",
        error_at=lambda number: f"data: {json_text({'error': error_body(SERVER_ERROR)})}\n\n",
        tokens_per_event=len(choices),
    )


class _ChoiceChunks:
    """The chunks of one choice."""

    def __init__(self, base: str, last: str, index: int, said: Said, number: str, logprobs: int | None) -> None:
        self._before = f'{base}"choices":[{{"index":{index},"delta":'
        self._after = f',"logprobs":null,"finish_reason":null}}]{last}'
        self._last = last
        self._said = said
        self._call_id = f"call_{number}{index:03d}"
        self._logprobs = logprobs

    def opening(self) -> str:
        if self._said.tools or self._said.is_refusal:
            return f'{self._before}{{"role":"assistant","content":null,"refusal":null}}{self._after}'
        return f'{self._before}{{"role":"assistant","content":"","refusal":null}}{self._after}'

    def events(self) -> list[str]:
        """One chunk a token; the first of a tool call brings the chunk that names it."""
        said = self._said
        if said.tools:
            return self._tool_events()
        name = "refusal" if said.is_refusal else "content"
        if self._logprobs is not None:
            return [self._with_logprobs(name, token) for token in said.tokens]
        before, after = f'{self._before}{{"{name}":"', f'"}}{self._after}'
        return [before + escaped(token) + after for token in said.tokens]

    def closing(self) -> str:
        reason = _finish_reason(self._said)
        return f'{self._before}{{}},"logprobs":null,"finish_reason":"{reason}"}}]{self._last}'

    def _tool_events(self) -> list[str]:
        events = []
        for nth, (name, tokens) in enumerate(self._said.tool_tokens()):
            function = f'"type":"function","function":{{"name":"{escaped(name)}","arguments":""}}'
            start = f'{{"index":{nth},"id":"{self._call_id}{nth}",{function}}}'
            prefix = f'{self._before}{{"tool_calls":[{start}]}}{self._after}'
            for token in tokens:
                piece = f'{{"index":{nth},"function":{{"arguments":"{escaped(token)}"}}}}'
                events.append(f'{prefix}{self._before}{{"tool_calls":[{piece}]}}{self._after}')
                prefix = ""
        return events

    def _with_logprobs(self, name: str, token: str) -> str:
        logprobs = json_text(_logprobs(name, (token,), self._logprobs or 0))
        delta = f'{{"{name}":"{escaped(token)}"}}'
        return f'{self._before}{delta},"logprobs":{logprobs},"finish_reason":null}}]{self._last}'


def _choice(said: Said, index: int, number: str, logprobs: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if said.tools:
        message["tool_calls"] = [
            {
                "id": f"call_{number}{index:03d}{nth}",
                "type": "function",
                "function": {"name": name, "arguments": "".join(tokens)},
            }
            for nth, (name, tokens) in enumerate(said.tool_tokens())
        ]
    else:
        message["refusal" if said.is_refusal else "content"] = said.text
    shown = None
    if logprobs is not None and not said.tools:
        shown = _logprobs("refusal" if said.is_refusal else "content", said.tokens, logprobs)
    return {"index": index, "message": message, "logprobs": shown, "finish_reason": _finish_reason(said)}


def _finish_reason(said: Said) -> str:
    if said.is_capped:
        return "length"
    return "tool_calls" if said.tools else "stop"


def _usage(call: Call) -> dict[str, Any]:
    return {
        "prompt_tokens": call.input_tokens,
        "completion_tokens": call.output_tokens,
        "total_tokens": call.input_tokens + call.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _top_logprobs(call: Call) -> int | None:
    """How many alternatives are wanted with each token; None: no log probabilities at all."""
    top = integer(call.body, "top_logprobs", 0, TOP_LOGPROBS_MAX)
    return (top or 0) if call.body.get("logprobs") is True else None


def _logprobs(name: str, tokens: tuple[str, ...], top: int) -> dict[str, Any]:
    shown = [{**token_logprob(token), "top_logprobs": top_logprobs(token, top)} for token in tokens]
    return {"content": None, "refusal": None, name: shown}


def token_logprob(token: str, rank: int = 0) -> dict[str, Any]:
    """A log probability that is a function of the token's length: plausible, and the same in every run."""
    raw = token.encode("utf-8", "replace")
    return {"token": token, "logprob": -0.01 * len(raw) - rank, "bytes": list(raw)}


def top_logprobs(token: str, top: int) -> list[dict[str, Any]]:
    """The token itself and `top - 1` others, the likeliest first."""
    others = tokens_of(token.encode("utf-8", "replace"), top)[1:]
    return [token_logprob(other, rank) for rank, other in enumerate([token, *others][:top])]
