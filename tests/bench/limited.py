"""Runs at a simulator that keeps its limits: pools and clients in a database of their own, workers, and its ledger.

Owns the database and the simulator of a run, and how a ledger is read: what was admitted within a span that begins some
seconds after a pool's first call, against what its limit allows there. A refusal is counted whenever it came.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from llmjobs.models import Client, Model, Provider
from llmjobs.submissions import Submission
from llmjobs.testing import SimulatorProcess
from tests.bench import databases
from tests.bench.ground import Ground

REFUSED = 429
Ledger = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Span:
    """`after_s` from a pool's first call on, for `for_s`."""

    after_s: float
    for_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one model's calls came to. `requests` and `tokens` were admitted within the span, `sends` and `refusals`
    are of the whole run.
    """

    requests: int
    tokens: int
    sends: int
    refusals: int
    span: Span

    def requests_used(self, rpm: float) -> float:
        return self.requests / (rpm / 60 * self.span.for_s)

    def tokens_used(self, tpm: float) -> float:
        return self.tokens / (tpm / 60 * self.span.for_s)

    @property
    def refused_share(self) -> float:
        return self.refusals / self.sends


def reading(ledger: Ledger, model: str, span: Span) -> Reading:
    """A failed call counts: the provider has counted it. Raises RuntimeError if there is no call of `model`."""
    calls = [call for call in ledger if call["model"] == model]
    if not calls:
        raise RuntimeError(f"expected calls of {model} in the simulator's ledger, got none")
    begin = min(call["at"] for call in calls) + span.after_s
    admitted = [call for call in calls if call["status"] != REFUSED and begin <= call["at"] < begin + span.for_s]
    tokens = sum(call["input_tokens"] + call["output_tokens"] for call in admitted)
    refusals = sum(1 for call in calls if call["status"] == REFUSED)
    return Reading(len(admitted), tokens, len(calls), refusals, span)


class LimitedSite:
    def __init__(self, ground: Ground, simulator: SimulatorProcess) -> None:
        self._ground, self.simulator = ground, simulator
        self._provider = Provider.objects.create(name="limited", base_url=simulator.url)

    def add_pool(self, name: str, **limits: Any) -> Model:
        return Model.objects.create(name=name, provider=self._provider, **limits)

    def add_clients(self, names: Sequence[str]) -> list[Client]:
        return [self._ground.make_client(name, "enterprise") for name in names]

    def submit(self, jobs: Sequence[Submission], client: Client) -> None:
        self._ground.submit(jobs, client)

    @contextmanager
    def workers(self, counts: dict[str, int]) -> Iterator[None]:
        """By pool, so many processes that serve it alone. All are up; at the end they do not wait for their calls."""
        with ExitStack() as stack:
            for pool, count in counts.items():
                for _ in range(count):
                    stack.enter_context(self._ground.worker(pools=pool))
            yield

    def wait(self, span: Span) -> None:
        time.sleep(span.after_s + span.for_s + 1)


@contextmanager
def limited_site(ground: Ground, **simulator_options: Any) -> Iterator[LimitedSite]:
    """A fresh simulator and a fresh database, which workers started meanwhile use too."""
    database = databases.fresh()
    try:
        with databases.using(database), SimulatorProcess(**simulator_options) as simulator:
            yield LimitedSite(ground, simulator)
    finally:
        databases.drop(database)
