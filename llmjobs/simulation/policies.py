"""Who is next: three rules behind the same four verbs. A policy knows calls and their order, no time and no slots.

Fair is the fair order as it is served (fairness.py). The other two are what one would do without it.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from llmjobs.fairness import Charge, FairPool, Flow, Job, Tier
from llmjobs.simulation.workload import Call, Workload


class Policy(Protocol):
    def submit(self, call: Call) -> None: ...

    def start(self) -> Call | None:
        """Takes the next call out of the queue; None where none waits."""
        ...

    def settle(self, call: Call) -> None: ...


class Fair:
    """`largest_charge`: the dearest expectation so far, which the bound of the gaps is made of."""

    def __init__(self, workload: Workload) -> None:
        # All calls have one priority, so there is nothing to age.
        self._tiers = [Tier(number, weight, aging_s=0) for number, weight in enumerate(workload.weights)]
        self._pool = FairPool(self._tiers)
        self._running: dict[int, Charge] = {}
        self._calls: dict[int, Call] = {}
        self.largest_charge = 0.0
        for client in workload.clients:
            self._pool.add(Flow(client, self._tiers[workload.tier_of(client)]))

    def submit(self, call: Call) -> None:
        self._calls[call.id] = call
        self._pool.submit(Job(call.id, call.client, call.est_cost, call.id))

    def start(self) -> Call | None:
        for charge in self._pool.claim():
            self._running[charge.job.id] = charge
            self.largest_charge = max(self.largest_charge, charge.cost)
            return self._calls.pop(charge.job.id)
        return None

    def settle(self, call: Call) -> None:
        self._pool.settle(self._running.pop(call.id), call.cost)


class Fifo:
    def __init__(self, workload: Workload) -> None:
        self._waiting: deque[Call] = deque()

    def submit(self, call: Call) -> None:
        self._waiting.append(call)

    def start(self) -> Call | None:
        return self._waiting.popleft() if self._waiting else None

    def settle(self, call: Call) -> None:
        pass


class RoundRobin:
    """A call of each client that waits, in turn: blind to weights and to sizes."""

    def __init__(self, workload: Workload) -> None:
        self._waiting: dict[int, deque[Call]] = {}
        self._turns: deque[int] = deque()

    def submit(self, call: Call) -> None:
        if call.client not in self._waiting:
            self._waiting[call.client] = deque()
            self._turns.append(call.client)
        self._waiting[call.client].append(call)

    def start(self) -> Call | None:
        if not self._turns:
            return None
        client = self._turns.popleft()
        call = self._waiting[client].popleft()
        if self._waiting[client]:
            self._turns.append(client)
        else:
            del self._waiting[client]
        return call

    def settle(self, call: Call) -> None:
        pass


FAIR, ROUND_ROBIN, FIFO = "fair", "round robin", "FIFO"
POLICIES: dict[str, Callable[[Workload], Policy]] = {FAIR: Fair, ROUND_ROBIN: RoundRobin, FIFO: Fifo}
