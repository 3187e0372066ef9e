"""Viewers of streaming jobs, at one web process: how old a token is when it comes, and what the process takes for it.

Half of the viewers come over WebSockets, half over Server-Sent Events; they are processes of their own (watcher.py).
The simulator writes into each token when it sends it. All of it shares this machine's processors: provider, worker,
Postgres, web server and viewers. What was missed or came twice fails the part.
"""

import json
import math
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.db import connection

from llmjobs.models import ApiKey, Job
from llmjobs.states import State
from tests.bench.ground import Ground, jobs_of, last_job_id
from tests.bench.memory import _mib
from tests.bench.report import Table, progress

TOKENS_PER_S = 20
WATCHERS = 2  # processes
JOBS_PER_CLIENT = 10
AGE_P95_MS, MOST_MIB, MOST_CONNECTIONS = 500, 400, 8
NAME = "llmjobs-bench-web"  # by which Postgres knows the web server's connections, but for those of its hub
LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """`tokens`: of each job; they last until all viewers have come, and `window_s` is over."""

    viewers: int = 1_000
    jobs: int = 200
    tokens: int = 1_000
    window_s: float = 20.0


QUICK = Sizes(viewers=40, jobs=10, tokens=140, window_s=2.0)


def measure(ground: Ground, *, is_quick: bool) -> Table:
    sizes = QUICK if is_quick else Sizes()
    table = Table(f"{sizes.viewers:,} viewers of {sizes.jobs} jobs of {TOKENS_PER_S} tokens/s, one web process")
    for server in ("daphne",) if is_quick else ("daphne", "uvicorn"):
        found = _Run(ground, sizes, server).measure()
        add = table.at_most if server == "daphne" else _told_of(table)
        add(f"{server}: token to viewer, p95", _percentile(found.ages_ms, 95), AGE_P95_MS, "ms", digits=0)
        table.add("    p50, p99, most", ", ".join(f"{_percentile(found.ages_ms, at):,} ms" for at in (50, 99, 100)))
        table.add("    tokens, in s", f"{found.ages_ms.total():,}, {sizes.window_s:g}")
        add("    the most memory it had (VmHWM)", found.mib, MOST_MIB, "MiB", digits=0)
        add("    Postgres connections", found.connections, MOST_CONNECTIONS, "", digits=0)
        table.add("    of a processor, the web server took", f"{found.cpu_share:.0%}")
    return table


def _told_of(table: Table) -> Any:
    def add(name: str, value: float, most: float, unit: str, digits: int) -> None:
        table.add(name, f"{value:,.{digits}f} {unit}".rstrip())

    return add


@dataclass(slots=True)
class Found:
    """`connections`: the most at any look; `cpu_share`: 1 is a whole processor."""

    ages_ms: Counter[int]
    mib: float
    connections: int
    cpu_share: float


class _Run:
    def __init__(self, ground: Ground, sizes: Sizes, server: str) -> None:
        self._ground, self._sizes, self._server = ground, sizes, server
        self._running = Job.objects.none()

    def measure(self) -> Found:
        with (
            self._ground.web_process(self._server, PGAPPNAME=NAME) as (url, web),
            self._ground.worker(self._sizes.jobs),
        ):
            viewers = self._submit()
            watchers = [self._watcher(url, viewers[number::WATCHERS]) for number in range(WATCHERS)]
            try:
                return self._watch(watchers, web.pid)
            finally:
                for watcher in watchers:
                    watcher.kill()
                    watcher.wait()

    def _submit(self) -> list[tuple[str, str, str]]:
        """Job, key and road of each viewer, once all jobs run."""
        sizes, before = self._sizes, last_job_id()
        prompt = f"[[stamp]] [[tokens={sizes.tokens}]] [[tokens_per_s={TOKENS_PER_S}]]"
        progress(f"viewers, {self._server}: {sizes.jobs} jobs begin")
        keys = {}
        for number in range(0, sizes.jobs, JOBS_PER_CLIENT):
            client = self._ground.make_client(f"viewers-{self._server}-{number}", "enterprise")
            keys[client.id] = ApiKey.objects.issue(client)[1]
            self._ground.submit(jobs_of(JOBS_PER_CLIENT, prompt), client)
        self._running = Job.objects.filter(id__gt=before, state=State.RUNNING)
        self._ground.wait_until(lambda: self._running.count() == sizes.jobs, f"{sizes.jobs} running jobs")
        jobs = [(str(job.public_id), keys[job.client_id]) for job in self._running]
        return [(*jobs[number % len(jobs)], ("ws", "sse")[number % 2]) for number in range(sizes.viewers)]

    def _watcher(self, url: str, viewers: list[tuple[str, str, str]]) -> "subprocess.Popen[str]":
        watcher = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.watcher", urlsplit(url).netloc],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        _say(watcher, json.dumps(viewers))
        return watcher

    def _watch(self, watchers: list["subprocess.Popen[str]"], web_pid: int) -> Found:
        sizes = self._sizes
        progress(f"viewers, {self._server}: {sizes.viewers} come")
        for watcher in watchers:
            if (said := watcher.stdout.readline()) != "watching\n":  # type: ignore[union-attr]
                raise RuntimeError(f"expected all to watch, got {said!r}")
        since = time.time() + 1
        for watcher in watchers:
            _say(watcher, f"from {since} to {since + sizes.window_s}")
        progress(f"viewers, {self._server}: {sizes.viewers} watch for {sizes.window_s:g} s")
        time.sleep(max(0.0, since - time.time()))
        cpu_s, connections = _cpu_s(web_pid), 0
        while time.time() < since + sizes.window_s:
            connections = max(connections, _connections())
            time.sleep(LOOK_S)
        cpu_share = (_cpu_s(web_pid) - cpu_s) / (time.time() - since)
        if self._running.count() < sizes.jobs:
            raise RuntimeError(f"expected {sizes.jobs} jobs to stream until all had come and were measured")
        progress(f"viewers, {self._server}: to the end of all streams")
        ages_ms = self._whole([json.loads(watcher.stdout.readline()) for watcher in watchers])  # type: ignore[union-attr]
        return Found(ages_ms, _mib(web_pid, "VmHWM"), connections, cpu_share)

    def _whole(self, told: list[dict[str, Any]]) -> Counter[int]:
        """Raises RuntimeError if a viewer missed a token, or saw one twice."""
        ages_ms: Counter[int] = Counter()
        for one in told:
            short = sum(tokens != self._sizes.tokens for tokens in one["tokens"])
            if short or one["broken"]:
                raise RuntimeError(f"{short} viewers saw more or fewer than all tokens; {set(one['broken'])}")
            ages_ms.update({int(ms): count for ms, count in one["ages_ms"].items()})
        return ages_ms


def _say(watcher: "subprocess.Popen[str]", line: str) -> None:
    watcher.stdin.write(f"{line}\n")  # type: ignore[union-attr]
    watcher.stdin.flush()  # type: ignore[union-attr]


def _connections() -> int:
    """The web server's."""
    with connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = any (%s)",
            [[NAME, "llmjobs-live"]],
        )
        return int(cursor.fetchone()[0])


def _cpu_s(pid: int) -> float:
    """Seconds of a processor that a process has taken."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


def _percentile(ages_ms: Counter[int], percent: float) -> int:
    """The least age that so many percent of the tokens do not exceed."""
    left = math.ceil(ages_ms.total() * percent / 100)
    for age in sorted(ages_ms):
        left -= ages_ms[age]
        if left <= 0:
            return age
    raise ValueError("expected tokens")
