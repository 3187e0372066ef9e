"""What a scenario plays with: a fresh database, workers, a web server, clients, and the faults that were made.

Owns the processes, which are the commands that users run. Knows no scenario and judges nothing. Every fault is noted
with its moment, for `recovery.py`. Invariant: after `heal` all that a scenario broke is whole again.
"""

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from django.db import DatabaseError, connection

from llmjobs.demo.processes import Child, stop
from llmjobs.models import ApiKey, Client, Job, Model, Provider, Tier, WebhookDelivery, Worker
from llmjobs.states import TERMINAL, State
from llmjobs.testing import SimulatorProcess
from tests.chaos.asked import CLIENTS, MODEL
from tests.chaos.load import Load
from tests.chaos.receiver import Receiver
from tests.chaos.server import Server
from tests.live_process import ROOT

T = TypeVar("T")

PROVIDER_KEY = "sk-chaos-not-to-be-logged"
POLL_S = 0.1
READY_WITHIN_S = 60
SLOTS = 32
BUSY_JOBS, BUSY_WITHIN_S = 3, 5


@dataclass(slots=True)
class Hired:
    """A worker's process, and its row's id."""

    child: Child
    id: UUID | None = None


@dataclass(slots=True)
class Fault:
    """`workers`: whose jobs must run again elsewhere. None: all were hit, and must be served again."""

    kind: str
    at: float  # unix time
    workers: tuple[UUID, ...] | None = None


@dataclass(slots=True)
class Site:
    server: Server
    simulator: SimulatorProcess
    logs: Path
    dice: random.Random
    settings: dict[str, str]  # LLMJOBS_* of every process
    say: Callable[[str], None]  # a line of progress
    load: Load = field(init=False)
    receiver: Receiver = field(init=False)
    workers: list[Hired] = field(default_factory=list)
    retired: list[Hired] = field(default_factory=list)  # draining
    webs: list[tuple[Child, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    began: int = 0  # processes, for the names of their logs

    def open(self, *, worker_count: int, bad_webhooks: float = 0, clocks_s: Iterable[float] = ()) -> None:
        """`clocks_s`: by how much the workers' clocks are off; the others' are right."""
        provider = Provider.objects.create(name="chaos", base_url=self.simulator.url, api_key_env="SIMULATOR_API_KEY")
        prices = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 4}
        Model.objects.create(name=MODEL, provider=provider, rpm=60_000_000, tpm=2_000_000_000, **prices)
        for name, tier in CLIENTS.items():
            row = Tier.objects.get(name=tier)
            wide = {"max_queued": 1_000_000, "max_queued_tokens": 2_000_000_000, "monthly_budget_usd": 1_000_000}
            self.keys[name] = ApiKey.objects.issue(Client.objects.create(name=name, tier=row, **wide))[1]
        secrets = list(Client.objects.values_list("webhook_secret", flat=True))
        self.receiver = Receiver(secrets, bad_share=bad_webhooks, seed=self.dice.randrange(2**31))
        self.load = Load(lambda: self.webs[-1][1], self.keys)
        self.start_web()
        for clock_s in [*clocks_s, *[0.0] * worker_count][:worker_count]:
            self.hire(clock_s)
        for worker in self.workers:
            self.await_worker(worker)
        self.await_web()

    def close(self) -> None:
        """Also of a site that opened in part."""
        self.stop_all()
        for part in ("load", "receiver"):
            if hasattr(self, part):
                getattr(self, part).close()

    def stop_all(self) -> None:
        """Drains the workers; then nothing of ours runs any more but the simulator."""
        children = [worker.child for worker in [*self.workers, *self.retired]]
        for child in children:
            child.send(signal.SIGCONT)
        stop(children, within_s=20)
        stop([child for child, _ in self.webs], within_s=5)

    # Workers.

    def hire(self, clock_s: float = 0) -> Hired:
        """Started, and perhaps not yet there: see `await_worker`."""
        wrapped = ["-m", "tests.chaos.shifted_clock", str(clock_s)] if clock_s else []
        command = [sys.executable, "-W", "ignore", *wrapped, "manage.py", "runworker", "--concurrency", str(SLOTS)]
        worker = Hired(self._start("worker", command))
        self.workers.append(worker)
        return worker

    def await_worker(self, worker: Hired) -> Hired:
        def look() -> UUID | None:
            if worker.child.has_ended():
                raise RuntimeError(f"a worker ended at its start{worker.child.tail()}")
            row = Worker.objects.filter(pid=worker.child.pid, stopped_at=None).order_by("-started_at").first()
            return row and row.id

        worker.id = self.until(look, "a worker that is registered", READY_WITHIN_S)
        return worker

    def kill(self, worker: Hired) -> None:
        """SIGKILL; nobody takes its place yet."""
        self._await_busy(worker)
        self.hit("SIGKILL", worker)
        worker.child.kill()
        self.workers.remove(worker)

    def freeze(self, worker: Hired) -> None:
        self._await_busy(worker)
        self.hit("SIGSTOP", worker)
        worker.child.send(signal.SIGSTOP)

    def thaw(self, worker: Hired) -> None:
        worker.child.send(signal.SIGCONT)

    def retire(self, worker: Hired) -> None:
        """SIGTERM: it drains, and is waited for at the end."""
        self.hit("SIGTERM", worker)
        worker.child.send(signal.SIGTERM)
        self.workers.remove(worker)
        self.retired.append(worker)

    def _await_busy(self, worker: Hired) -> None:
        """Until it runs something, or for a while: a fault that meets nobody proves little."""
        held = Job.objects.filter(state=State.RUNNING, worker_id=worker.id)
        with suppress(TimeoutError):
            self.until(lambda: held.count() >= BUSY_JOBS, "a worker that runs jobs", BUSY_WITHIN_S)

    # Web servers: the newest is the one that clients use.

    def start_web(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = [sys.executable, "-W", "ignore", "-m", "daphne", "-v", "0", "-b", "127.0.0.1", "-p", str(port)]
        self.webs.append((self._start("web", [*command, "project.asgi:application"]), f"http://127.0.0.1:{port}"))

    def await_web(self) -> None:
        self._await_port(*self.webs[-1])

    def _await_port(self, child: Child, url: str) -> None:
        port = int(url.rpartition(":")[2])

        def look() -> bool:
            if child.has_ended():
                raise RuntimeError(f"the web server ended at its start{child.tail()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.until(look, "a web server that accepts", READY_WITHIN_S)

    def kill_web(self) -> None:
        """SIGKILL, with its viewers attached; another takes its place, on the same port."""
        child, _ = self.webs[-1]
        self.hit("web SIGKILL")
        child.kill()
        child.start()
        self.await_web()

    def replace_web(self) -> None:
        """A deploy: the new one accepts before clients are sent there, and then the old one is told to end."""
        old = self.webs[-1]
        self.start_web()
        new = self.webs.pop()
        self._await_port(*new)
        self.webs.append(new)
        self.hit("web SIGTERM")
        stop([old[0]], within_s=10)

    # Time, and what is waited for.

    def hit(self, kind: str, *workers: Hired) -> None:
        ids = tuple(worker.id for worker in workers if worker.id is not None)
        self.faults.append(Fault(kind, time.time(), ids if workers else None))
        self.say(kind)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def until(self, look: Callable[[], T], what: str, within_s: float) -> T:
        """The first true answer. A database that is away is asked again. Raises TimeoutError."""
        deadline = time.monotonic() + within_s
        while True:
            found = asked(look)
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {what} within {within_s:g} s")
            time.sleep(POLL_S)

    def heal(self) -> None:
        """Everybody back at work; the receiver and the provider behave."""
        self.simulator.control(reset=True)
        self.receiver.bad_share = 0
        for worker in self.workers:
            self.thaw(worker)

    def is_idle(self) -> bool:
        """Every job has ended, and all that is to be told of that was told, if perhaps not noted yet."""
        is_waiting = Job.objects.exclude(state__in=TERMINAL).exists()
        pending = WebhookDelivery.objects.filter(state="pending").values_list("job__public_id", flat=True)
        told = set(self.receiver.heard.jobs.values())
        return not is_waiting and all(str(public_id) in told for public_id in pending)

    def count_open(self) -> str:
        count = asked(lambda: Job.objects.exclude(state__in=TERMINAL).count())
        return "?" if count is None else str(count)

    def _start(self, name: str, command: list[str]) -> Child:
        self.began += 1
        environment = os.environ | self.settings | {"SIMULATOR_API_KEY": PROVIDER_KEY}
        log = self.logs / f"{self.began:02}-{name}.log"
        child = Child(name, command, log=log, environment=environment, folder=ROOT, orphan_signal=signal.SIGKILL)
        child.start()
        return child


def asked(question: Callable[[], T]) -> T | None:
    """None where the database can't be reached just now."""
    try:
        return question()
    except DatabaseError:
        connection.close()
        return None
