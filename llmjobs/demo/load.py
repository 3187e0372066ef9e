"""What `demo --once` submits: a mixed load of all endpoints, with faults that a retry mends; or the calls of a trace.

Pure. Owns what is asked for, by whom and when. The simulator obeys the `[[…]]` in a prompt: its calls.py says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.demo.site import TOKENS_PER_S, TTFT_MS
from llmjobs.demo.trace import TraceCall

CLIENTS = ("acme", "globex", "initech")  # one of each tier, in turn
MIXED_PER_CLIENT = 24
CHARS_PER_TOKEN = 4
SUBJECTS = ("queues", "tides", "bread", "glaciers", "chess", "maps", "bees", "bridges")
FILLER = "the quick brown fox jumps over the lazy dog and runs on "


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job to POST `at_s` seconds after the start. `ideal_s`: how long its call takes, if it is known before."""

    at_s: float
    client: str
    job: dict[str, Any]
    ideal_s: float | None = None


def mixed() -> list[Arrival]:
    """For each client the same, all at once: a queue builds up, and the tiers share."""
    return [
        Arrival(0.0, client, _mixed_job(client, number)) for number in range(MIXED_PER_CLIENT) for client in CLIENTS
    ]


def plain(model: str) -> list[Arrival]:
    """For a provider that costs money: one short call a tier."""
    body = {"messages": _user("Say in one sentence what a queue is good for."), "max_tokens": 60}
    return [Arrival(0.0, client, {"model": model, "body": body}) for client in CLIENTS]


def replay(calls: Sequence[TraceCall], speed: float) -> list[Arrival]:
    """The calls of a trace, `speed` times as fast, for the three tiers in turn."""
    return [
        Arrival(
            call.at_s / speed,
            CLIENTS[number % len(CLIENTS)],
            {"model": "sim-small", "messages": _user(prompt_of(call, number))},
            (TTFT_MS / 1000 + call.output_tokens / TOKENS_PER_S) / speed,
        )
        for number, call in enumerate(calls)
    ]


def prompt_of(call: TraceCall, number: int) -> str:
    """As many tokens as the call had; never fewer than the directive itself has, which is 4."""
    chars = call.input_tokens * CHARS_PER_TOKEN
    text = f"[[tokens={call.output_tokens}]] Call {number}: "
    text += FILLER * ((chars - len(text)) // len(FILLER) + 1)
    return text[: max(chars, text.index("]]") + 2)]


def _mixed_job(client: str, number: int) -> dict[str, Any]:
    prompt = f"Tell {client} something about {SUBJECTS[number % len(SUBJECTS)]}, number {number}."
    match number % 8:
        case 0 | 1 | 2:
            return {"model": "sim-small", "messages": _user(prompt)}
        case 3:
            return {"model": "sim-large", "body": {"messages": _user(prompt), "stream": False}}
        case 4:
            return {"model": "sim-large", "input": prompt}
        case 5:
            return {"model": "sim-vectors", "endpoint": "/v1/embeddings", "input": [prompt, "another text"]}
        case 6:
            return {"model": "sim-small", "messages": _user(f"{prompt} [[fault=overloaded:1]]")}
        case _:
            return {"model": "sim-large", "messages": _user(f"{prompt} [[fault=reset_midstream:1:8]]")}


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
