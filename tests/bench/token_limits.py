"""A limit of tokens a minute under each policy of reserving them, with the lengths of real conversations.

Input and output are lognormal, fitted to the Azure trace in `data/`; an answer takes ten seconds on average, the longer
the longer; each request allows 2,048 tokens of output. All policies at once, each with a pool of its own at one
simulator that counts what was said. The first minute is not measured: until then nobody knows what an answer has.
"""

import math
import os
import random
import statistics
from dataclasses import dataclass
from pathlib import Path

from llmjobs.demo import trace
from llmjobs.estimates import CHARS_PER_TOKEN
from llmjobs.submissions import Submission, parse
from tests.bench.ground import Ground
from tests.bench.limited import Reading, Span, limited_site, reading
from tests.bench.report import Table, progress

TRACE = Path(__file__).parent / "data" / "azure_llm_2023_conv_sample.csv"
POLICIES = ("portfolio", "expected", "max_tokens")
TPM, RPM = 300_000, 100_000
MAX_TOKENS = 2_048
INPUT_MAX = 8_000  # as the trace has it
TTFT_MS, TOKENS_PER_S = 500, 30
CLIENTS = 3
WORKERS = 4
SPAN, QUICK_SPAN = Span(60, 180), Span(10, 30)
LEAST_USED, MOST_REFUSED, LEAST_TIMES = 90, 1.5, 1.8  # percent, percent, times


@dataclass(frozen=True, slots=True)
class Lengths:
    """A lognormal law, of tokens."""

    mu: float
    sigma: float
    most: int

    @classmethod
    def fitted(cls, tokens: list[int], most: int) -> "Lengths":
        logs = [math.log(max(1, count)) for count in tokens]
        return cls(statistics.fmean(logs), statistics.stdev(logs), most)

    def draw(self, dice: random.Random) -> int:
        return min(max(1, round(dice.lognormvariate(self.mu, self.sigma))), self.most)


def add(table: Table, ground: Ground, *, is_quick: bool) -> None:
    span = QUICK_SPAN if is_quick else SPAN
    calls = trace.read(TRACE)
    asked = Lengths.fitted([call.input_tokens for call in calls], INPUT_MAX)
    said = Lengths.fitted([call.output_tokens for call in calls], MAX_TOKENS)
    progress(f"limits: {TPM:,} tokens a minute, {', '.join(POLICIES)}")
    found, load = _run(ground, asked, said, span)
    for policy in POLICIES:
        one = found[policy]
        name, used = f"tokens, {policy}: of {TPM:,} a minute used", 100 * one.tokens_used(TPM)
        if policy == "portfolio" and not is_quick:
            table.at_least(name, used, LEAST_USED, " %")
            table.at_most(f"    refused, of {one.sends:,} sends", 100 * one.refused_share, MOST_REFUSED, "%", digits=2)
        else:
            table.add(name, f"{used:.1f} %")
            table.add(f"    refused, of {one.sends:,} sends", f"{one.refused_share:.2%}")
    times = found["portfolio"].tokens / found["max_tokens"].tokens
    if is_quick:
        table.add("    portfolio / max_tokens, times", f"{times:.2f}")
    else:
        table.at_least("    portfolio / max_tokens, times", times, LEAST_TIMES)
    table.add("    lognormal (mu, sigma) of input, output", f"{_shown(asked)}, {_shown(said)}")
    table.add("    load of the machine", f"{load:.1f}")


def _run(ground: Ground, asked: Lengths, said: Lengths, span: Span) -> tuple[dict[str, Reading], float]:
    pace = {"ttft_ms": TTFT_MS, "tokens_per_s": TOKENS_PER_S}
    with limited_site(ground, window="sliding", rpm=RPM, tpm=TPM, **pace) as site:
        clients = site.add_clients([f"bench-{number}" for number in range(CLIENTS)])
        for policy in POLICIES:
            site.add_pool(policy, rpm=RPM, tpm=TPM, token_policy=policy)
        with site.workers(dict.fromkeys(POLICIES, WORKERS)):
            for policy in POLICIES:
                dice = random.Random(1)  # the same load for each
                for client in clients:
                    site.submit(_load(policy, asked, said, span, dice), client)
            site.wait(span)
            load = os.getloadavg()[0]
        ledger = site.simulator.ledger()
    return {policy: reading(ledger, policy, span) for policy in POLICIES}, load


def _load(pool: str, asked: Lengths, said: Lengths, span: Span, dice: random.Random) -> list[Submission]:
    """Of one client: in all more than the limit can take."""
    mean = sum(math.exp(law.mu + law.sigma**2 / 2) for law in (asked, said))
    count = int(TPM / 60 * (span.after_s + span.for_s) / mean * 1.5 / CLIENTS) + 50
    return [_submission(pool, asked.draw(dice), said.draw(dice)) for _ in range(count)]


def _submission(pool: str, input_tokens: int, output_tokens: int) -> Submission:
    order = f" [[tokens={output_tokens}]]"
    words = "word " * (input_tokens * CHARS_PER_TOKEN // 5 + 1)
    text = words[: max(0, input_tokens * CHARS_PER_TOKEN - len(order))] + order
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": MAX_TOKENS}
    return parse({"model": pool, "body": body})


def _shown(law: Lengths) -> str:
    return f"({law.mu:.2f}, {law.sigma:.2f})"
