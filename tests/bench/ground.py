"""What is measured stands here: databases of its own on the site's server, one simulator, workers, a web server.

Owns these and takes them away at the end; `databases.py` makes the databases. Postgres is as it is for users:
fsync on. The workers and the web server are the commands that users run, in processes of their own.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmjobs import queue
from llmjobs.demo.processes import Child, stop
from llmjobs.demo.site import HOST
from llmjobs.models import ApiKey, Client, Job, Model, Provider, Tier
from llmjobs.models import Worker as WorkerRow
from llmjobs.states import State
from llmjobs.submissions import Submission, parse
from llmjobs.testing import SimulatorProcess
from tests.bench import databases

ROOT = Path(__file__).resolve().parents[2]
MODEL = "bench"
SUBMIT_BATCH = 500
READY_WITHIN_S = 60
POLL_S = 0.02
SERVERS = {
    "daphne": ("daphne", "-v", "0", "-b", HOST),
    "uvicorn": ("uvicorn", "--lifespan", "off", "--log-level", "warning", "--host", HOST),
}


class Ground:
    def __init__(self, simulator: SimulatorProcess, logs: Path) -> None:
        self.simulator, self._logs = simulator, logs
        ample = {"rpm": 100_000_000, "tpm": 2_000_000_000}
        provider = Provider.objects.create(name="simulator", base_url=simulator.url)
        self.model = Model.objects.create(name=MODEL, provider=provider, **ample)
        self.client = self.make_client("bench", "enterprise")
        self.key = ApiKey.objects.issue(self.client)[1]

    def make_client(self, name: str, tier: str) -> Client:
        row = Tier.objects.get(name=tier)
        return Client.objects.create(name=name, tier=row, max_queued=1_000_000, max_queued_tokens=2_000_000_000)

    def submit(self, jobs: Sequence[Submission], client: Client | None = None) -> None:
        """In bulk, a batch a transaction."""
        for start in range(0, len(jobs), SUBMIT_BATCH):
            queue.submit_submissions(client or self.client, list(jobs[start : start + SUBMIT_BATCH]))

    def wait_until(self, is_so: Callable[[], bool], what: str, within_s: float = 120) -> None:
        deadline = time.monotonic() + within_s
        while not is_so():
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {what} within {within_s:g} s")
            time.sleep(POLL_S)

    def wait_until_completed(self, count: int, after_id: int) -> None:
        """Until so many jobs with higher ids have completed."""
        found = Job.objects.filter(id__gt=after_id, state=State.COMPLETED)
        self.wait_until(lambda: found.count() >= count, f"{count} completed jobs")

    @contextmanager
    def worker(self, concurrency: int = 64, *, pools: str = "") -> Iterator[Child]:
        """A worker that is ready, drained at the end. It serves all pools, or those that are named."""
        command = [sys.executable, "manage.py", "runworker", "--concurrency", str(concurrency), "--drain-timeout", "0"]
        command += ["--pools", pools] if pools else []
        with self._process("worker", command) as worker:
            here = WorkerRow.objects.filter(pid=worker.pid, stopped_at=None)
            self.wait_until(lambda: self._is_up(worker) and here.exists(), "a worker", READY_WITHIN_S)
            yield worker

    @contextmanager
    def web(self, server: str = "daphne", **environment: str) -> Iterator[str]:
        """The URL of a web server that answers."""
        with self.web_process(server, **environment) as (url, _):
            yield url

    @contextmanager
    def web_process(self, server: str = "daphne", **environment: str) -> Iterator[tuple[str, Child]]:
        """The same, with its process; `environment` adds variables."""
        port = _free_port()
        command = [sys.executable, "-m", *SERVERS[server], "-p" if server == "daphne" else "--port", str(port)]
        with self._process("web", [*command, "project.asgi:application"], **environment) as web:
            self.wait_until(lambda: self._is_up(web) and _accepts(port), "a web server", READY_WITHIN_S)
            yield f"http://{HOST}:{port}", web

    @contextmanager
    def _process(self, name: str, command: list[str], **added: str) -> Iterator[Child]:
        log, environment = self._logs / f"{name}.log", {**os.environ, **added}
        child = Child(name, command, log=log, environment=environment, folder=ROOT, orphan_signal=signal.SIGKILL)
        child.start()
        try:
            yield child
        finally:
            stop([child], within_s=10)

    def _is_up(self, child: Child) -> bool:
        if child.has_ended():
            raise RuntimeError(f"the {child.name} ended at its start{child.tail()}")
        return True


def jobs_of(count: int, prompt: str, *, stream: bool = True) -> list[Submission]:
    messages = [{"role": "user", "content": prompt}]
    body = {"messages": messages} if stream else {"messages": messages, "stream": False}
    return [parse({"model": MODEL, "body": body})] * count


def last_job_id() -> int:
    return Job.objects.order_by("-id").values_list("id", flat=True).first() or 0


@contextmanager
def prepared() -> Iterator[Ground]:
    """Django is set up; from here on everything uses the new database."""
    logs = Path(tempfile.mkdtemp(prefix="llmjobs-bench-"))
    try:
        with databases.prepared(), SimulatorProcess() as simulator:
            yield Ground(simulator, logs)
    finally:
        shutil.rmtree(logs)


def run_json(command: Sequence[str], given: str | None = None) -> dict[str, Any]:
    """What a process that is measured beside us prints; `given`: its input."""

    python = [sys.executable, "-m", *command]
    done = subprocess.run(python, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, input=given)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _free_port() -> int:

    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:

    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
