"""What a person at the terminal sees: what runs and how to get in, the first job word by word, bars, the table.

Owns words and layout. Knows nothing of processes or rows. On a terminal the bars are drawn in place; elsewhere a plain
line now and then stands for them.
"""

import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from llmjobs.demo import summary
from llmjobs.demo.client import Api
from llmjobs.demo.load import Arrival
from llmjobs.demo.running import Run, Seen
from llmjobs.demo.seeding import ADMIN, CLIENTS, OPERATOR, Secrets
from llmjobs.states import TERMINAL, EventType, State

WIDTH = 88
INDENT = "  "
BAR_CHARS = 32
PLAIN_EVERY_S = 2.0
BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


class Screen:
    """A terminal, or a file or pipe that gets the same words without colours."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.is_terminal = out.isatty()

    def say(self, text: str = "", end: str = "\n") -> None:
        self._out.write(text + end)
        self._out.flush()

    def styled(self, text: str, style: str) -> str:
        return f"{style}{text}{PLAIN}" if self.is_terminal else text

    def heading(self, text: str) -> None:
        self.say()
        self.say(self.styled(text, BOLD))

    def pair(self, name: str, value: str, note: str = "") -> None:
        self.say(f"{INDENT}{name:<11}{value}" + (self.styled(f"   {note}", DIM) if note else ""))


def welcome(
    screen: Screen, *, url: str, simulator_url: str, postgres: str, workers: int, secrets: Secrets, model: str | None
) -> None:
    """`model`: for a line to try; None where nobody has the time to."""
    client, key = next(iter(secrets.api_keys.items()))
    screen.heading("llmjobs")
    screen.pair("page", f"{url}/", f"{client} / {secrets.password}")
    screen.pair("admin", f"{url}/admin/", f"{ADMIN} / {secrets.password}")
    screen.pair("docs", f"{url}/docs/")
    screen.pair("API", f"{url}/api/docs", f"key of {client}: {key}")
    screen.pair("simulator", simulator_url, "the provider here: nothing is paid for")
    screen.pair("Postgres", postgres)
    screen.pair("workers", str(workers) if workers else "none", "" if workers else "start one: manage.py runworker")
    others = ", ".join(f"{name} ({tier})" for name, tier in CLIENTS.items())
    screen.say(screen.styled(f"{INDENT}also with that password: {OPERATOR}, and for the clients {others}", DIM))
    if model is None:
        return
    screen.heading("Try it")
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    screen.say(f"{INDENT}curl {url}/api/jobs -H 'Authorization: Bearer {key}' \\")
    screen.say(f"{INDENT}  -H 'Content-Type: application/json' -d '{body}'")


def first_job(screen: Screen, api: Api, job: Mapping[str, Any], name: str) -> bool:
    """Submit a job and show its answer as it comes. Whether it completed. Raises as `Api` does."""
    began_at = time.monotonic()
    made = api.submit(dict(job), name)
    path = f"/api/jobs/{made['id']}"
    screen.heading(f"A first job: POST /api/jobs, then GET {path}/events")
    words, done = _Words(screen), made
    for event in api.follow(f"{path}/events"):
        match event.type:
            case EventType.DELTA:
                words.add(event.data["text"])
            case EventType.RESET:
                words.end(" … started over:")
            case EventType.DONE:
                done = event.data
    words.end()
    took = summary.seconds(time.monotonic() - began_at)
    if done["status"] != State.COMPLETED:
        error = done.get("error") or {}
        why = error.get("message", "no reason given")
        screen.say(INDENT + screen.styled(f"{done['status']} after {took}: {why}", RED))
        return False
    read, wrote = _tokens(done["usage"] or {})
    cost = "no price" if done["cost_usd"] is None else f"${done['cost_usd']:.6f}"
    screen.say(INDENT + screen.styled(f"completed in {took}: {read} + {wrote} tokens, {cost}", GREEN))
    return True


class _Words:
    """Text that comes in pieces, indented and wrapped."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._column = screen, 0

    def add(self, text: str) -> None:
        for word in " ".join(text.splitlines()).replace(" ", "\0 ").split("\0"):
            if self._column + len(word) > WIDTH:
                self._screen.say()
                self._column, word = 0, word.lstrip()
            if word:
                self._screen.say((INDENT if self._column == 0 else "") + word, end="")
                self._column += len(word)

    def end(self, text: str = "") -> None:
        if self._column or text:
            self._screen.say(text)
        self._column = 0


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    read = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    return read, usage.get("completion_tokens", usage.get("output_tokens", 0))


class Bars:
    """How a run stands, a line a client."""

    def __init__(self, screen: Screen, planned: Mapping[str, int]) -> None:
        self._screen, self._planned = screen, planned
        self._drawn_at, self._is_drawn = 0.0, False

    def show(self, at_s: float, counts: Mapping[str, Counter[str]]) -> None:
        if self._screen.is_terminal:
            if self._is_drawn:
                self._screen.say(f"\x1b[{len(self._planned)}A", end="")
            for client, planned in self._planned.items():
                self._screen.say(f"\x1b[2K{INDENT}{self._bar(client, planned, counts.get(client, Counter()))}")
            self._is_drawn = True
        elif at_s - self._drawn_at >= PLAIN_EVERY_S:
            self._drawn_at = at_s
            ended = {client: _ended(counts.get(client, Counter())) for client in self._planned}
            shown = [f"{client} {ended[client]}/{planned}" for client, planned in self._planned.items()]
            self._screen.say(f"{INDENT}{at_s:.0f} s: {', '.join(shown)} jobs ended")

    def _bar(self, client: str, planned: int, counts: Counter[str]) -> str:
        ended, running = _ended(counts), counts[State.RUNNING]
        full, part = BAR_CHARS * ended // planned, BAR_CHARS * (ended + running) // planned
        bar = self._screen.styled("█" * full, GREEN) + "▒" * (part - full) + "░" * (BAR_CHARS - part)
        waiting = counts[State.QUEUED] + counts[State.SCHEDULED]
        return f"{client:<9}{CLIENTS[client]:<11}{bar} {ended:>4}/{planned}  {running} running, {waiting} waiting"


def _ended(counts: Counter[str]) -> int:
    return sum(count for state, count in counts.items() if state in TERMINAL)


def load(screen: Screen, url: str, secrets: Secrets, arrivals: Sequence[Arrival], title: str) -> bool:
    """Run a load, then show what became of it. Whether every job completed. Raises as `Run.run` does."""
    screen.heading(title)
    run = Run(url, secrets.api_keys, arrivals)
    seen = run.run(Bars(screen, run.planned).show)
    lines = summary.of_jobs(list(seen.clients))
    total = lines[-1]
    screen.say()
    for line in summary.table(lines):
        screen.say(INDENT + line)
    screen.say()
    for line in _findings(run, seen, total, arrivals):
        screen.say(textwrap.indent(line, INDENT))
    missing = len(arrivals) - total.completed
    verdict = f"{missing} of {len(arrivals)} jobs did not complete" if missing else "every job completed"
    screen.say(INDENT + screen.styled(verdict, RED if missing else GREEN))
    return not missing


def _findings(run: Run, seen: Seen, total: summary.Line, arrivals: Sequence[Arrival]) -> list[str]:
    took_s = run.took_s
    found = [
        f"{total.jobs:,} jobs in {took_s:.1f} s: {total.jobs / took_s:.1f} jobs/s, "
        f"{(total.input_tokens + total.output_tokens) / took_s:,.0f} tokens/s",
        f"streamed {seen.event_count:,} events; what was streamed is what is stored for "
        f"{total.jobs - seen.differing} of {total.jobs} jobs",
    ]
    ideals_s = [arrival.ideal_s for arrival in arrivals if arrival.ideal_s is not None]
    if ideals_s:
        ends_s = max(arrival.at_s + (arrival.ideal_s or 0) for arrival in arrivals)
        p50, p95 = (summary.seconds(summary.percentile(ideals_s, percent)) for percent in (50, 95))
        found.append(f"ideal, each call begun as it arrives: {ends_s:.1f} s; total p50 {p50}, p95 {p95}")
        late = summary.seconds(summary.percentile(seen.late_s, 95))
        found.append(f"p95 from a call's arrival in the trace until its job was taken in: {late}")
    return found
