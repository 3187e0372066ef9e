"""The scenarios: what dies, when, and how often, while clients go on submitting.

Each is a function that makes its faults and returns; the run (`running.py`) submits the load beside it, heals the site
and judges. Full sizes are 20,000 jobs together. `Tempo` has what differs between a full run, with the leases that users
have, and a quick one.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from llmjobs.providers.simulator.faults import FAULTS
from tests.chaos.site import Hired, Site

PROVIDER_AWAY = "provider away"
# Faults that close the whole account, until a probe: a share each, so small that others are met, too.
ACCOUNT_FAULTS = ("unauthorized", "forbidden", "insufficient_quota")
VALUES = {
    "rate_limit": 0.2, "slow_down": 0.2, "overloaded": 0.2, "slow_first_token": 1, "stall": 3, "stall_midstream": 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tempo:
    """`scale` is of jobs and numbers of faults; `lease_s` as the workers have it.

    `recovery_max_s` is a promise with the leases that users have; a quick run shares its machine with other tests.
    """

    scale: float
    lease_s: float
    recovery_max_s: float

    def times(self, full: int) -> int:
        return max(1, round(full * min(self.scale, 1)))


@dataclass(frozen=True, slots=True)
class Scenario:
    """`jobs` of a full run at least, submitted within `span_s` or as much more as the faults take."""

    play: Callable[[Site, Tempo], None]
    jobs: int
    span_s: float
    settings: Mapping[str, str] = field(default_factory=dict)
    worker_count: int = 3
    bad_webhooks: float = 0
    webhook_share: float = 0.1
    watched_share: float = 0.03
    clocks_s: tuple[float, ...] = ()
    may_repeat: bool = True

    @property
    def title(self) -> str:
        return (self.play.__doc__ or "").partition("\n")[0].rstrip(".")


def kills(site: Site, tempo: Tempo) -> None:
    """SIGKILL of a worker every few seconds."""
    for _ in range(tempo.times(20)):
        site.pause(site.dice.uniform(0.5, 1.5))
        _kill_one(site)


def freezes(site: Site, tempo: Tempo) -> None:
    """SIGSTOP for longer than a lease, then SIGCONT."""
    for _ in range(tempo.times(3)):
        worker = site.dice.choice(site.workers)
        site.freeze(worker)
        site.pause(tempo.lease_s + 13)  # what it holds must not wait until then
        site.thaw(worker)
        site.pause(2)


def sessions(site: Site, tempo: Tempo) -> None:
    """pg_terminate_backend of everybody, again and again."""
    for _ in range(tempo.times(15)):
        site.pause(site.dice.uniform(0.5, 3))
        site.hit("pg_terminate_backend")
        site.server.terminate_everybody()


def restarts(site: Site, tempo: Tempo) -> None:
    """Three restarts of Postgres: in order, immediate, its postmaster killed."""
    for ending in ("fast", "immediate", "crash"):
        site.pause(site.dice.uniform(2, 6))
        site.hit(f"Postgres {ending}")
        site.server.restart(ending, away_s=site.dice.uniform(0, 3))
        site.pause(tempo.lease_s / 2)


def web_kills(site: Site, tempo: Tempo) -> None:
    """The web server killed with viewers attached."""
    for _ in range(tempo.times(5)):
        site.pause(site.dice.uniform(3, 6))
        site.kill_web()


def deploys(site: Site, tempo: Tempo) -> None:
    """Rolling restarts of workers and web servers, the new ones first."""
    for _ in range(tempo.times(3)):
        for old in list(site.workers):
            site.await_worker(site.hire())
            site.retire(old)
        site.replace_web()


def provider_faults(site: Site, tempo: Tempo) -> None:
    """Every fault of the provider at once, 30 % together, and nobody listening for a while."""
    usual = sorted(FAULTS - set(ACCOUNT_FAULTS))
    shares = {_order(name): 0.29 / len(usual) for name in usual}
    shares |= {name: 0.01 / len(ACCOUNT_FAULTS) for name in ACCOUNT_FAULTS}
    site.simulator.control(faults=shares, seed=site.dice.randrange(2**31))
    site.hit("faults of 30 %")
    for _ in range(tempo.times(3)):
        site.pause(site.dice.uniform(2, 5))
        site.hit(PROVIDER_AWAY)
        site.simulator.control(refuse=2.0)
    while not site.load.has_least():
        site.pause(0.5)


def receivers(site: Site, tempo: Tempo) -> None:
    """A webhook receiver that hangs, redirects, cuts off, answers 500, and is away for a while."""
    for _ in range(tempo.times(3)):
        site.pause(site.dice.uniform(1, 4))
        site.hit("receiver away")
        site.receiver.leave()
        site.pause(2)
        site.receiver.listen()
        _kill_one(site)
    while not site.load.has_least():
        site.pause(0.5)


def clocks(site: Site, tempo: Tempo) -> None:
    """Workers whose clocks are an hour off, both ways, and one that is killed."""
    site.pause(3)
    for clock_s in (3_600.0, -3_600.0)[: tempo.times(2)]:
        worker = site.workers[0]
        site.kill(worker)
        site.await_worker(site.hire(clock_s))
        site.pause(3)


def slow_commits(site: Site, tempo: Tempo) -> None:
    """Every commit takes a tenth of a second, and a worker is killed in it."""
    site.server.configure(commit_delay="100000", commit_siblings="0")
    site.hit("commits of 0.1 s")
    took_s = _commit_s(site)
    if took_s < 0.1:
        raise RuntimeError(f"expected commits of 0.1 s and longer, took {took_s:.3f} s")
    for _ in range(tempo.times(3)):
        site.pause(site.dice.uniform(3, 6))
        _kill_one(site)
    while not site.load.has_least():
        site.pause(0.5)
    site.server.configure(commit_delay="", commit_siblings="")


def no_connections(site: Site, tempo: Tempo) -> None:
    """Postgres takes half the connections that are wanted, and then all are taken by others."""
    wanted = site.server.count_sessions()
    site.hit("connections halved")
    site.server.restart("fast", connections_max=max(8, wanted // 2))
    site.pause(tempo.lease_s / 2)
    site.server.restart("fast")
    for _ in range(tempo.times(2)):
        site.pause(3)
        site.hit("connections taken")
        with _all_connections(site):
            site.pause(tempo.lease_s / 3)


def medley(site: Site, tempo: Tempo) -> None:
    """One of each, in an order that the seed gives, while a tenth of the calls fail.

    Four workers from the start, so that nobody waits for another to begin: one of them is left alone.
    """
    site.simulator.control(fail_rate=0.1, seed=site.dice.randrange(2**31))
    frozen: list[Hired] = []

    def freeze() -> None:
        frozen.append(site.workers[-1])
        site.freeze(frozen[0])

    def terminate() -> None:
        site.hit("pg_terminate_backend")
        site.server.terminate_everybody()

    def restart() -> None:
        site.hit("Postgres immediate")
        site.server.restart("immediate")

    acts = [
        lambda: site.kill(site.workers[0]), lambda: site.retire(site.workers[1]), freeze, terminate, restart,
        site.kill_web,
    ]  # fmt: skip
    site.dice.shuffle(acts)
    for act in acts:
        act()
        site.pause(0.7)
    site.pause(tempo.lease_s)
    site.thaw(frozen[0])


FULL: dict[str, Scenario] = {
    "kills": Scenario(kills, 3_600, 120),
    "freezes": Scenario(freezes, 1_600, 65),
    "sessions": Scenario(sessions, 2_200, 60),
    "restarts": Scenario(restarts, 2_000, 45),
    "web": Scenario(web_kills, 1_600, 60, watched_share=0.1),
    "deploys": Scenario(deploys, 2_400, 100, may_repeat=False),
    "provider": Scenario(
        provider_faults,
        2_000,
        40,
        {
            "LLMJOBS_PROBE_S": "0.3", "LLMJOBS_PROBE_MAX_S": "0.5", "LLMJOBS_FIRST_TOKEN_TIMEOUT_S": "2",
            "LLMJOBS_BETWEEN_TOKENS_TIMEOUT_S": "2",
        },
    ),
    "webhooks": Scenario(receivers, 1_200, 25, bad_webhooks=0.5, webhook_share=0.5),
    "clocks": Scenario(clocks, 1_400, 40, clocks_s=(3_600, -3_600), webhook_share=0.2),
    "commits": Scenario(slow_commits, 1_200, 30),
    "connections": Scenario(no_connections, 1_400, 35),
}  # fmt: skip
QUICK: dict[str, Scenario] = {"medley": Scenario(medley, 2_500, 80, worker_count=4, webhook_share=0.05)}


def _kill_one(site: Site) -> None:
    """And hire another, which is waited for: the site never runs out of workers."""
    site.kill(site.dice.choice(site.workers))
    site.await_worker(site.hire())


@contextmanager
def _all_connections(site: Site) -> Iterator[None]:
    """Somebody else has all that are left, those for superusers too."""
    taken: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(psycopg.connect(site.server.url))
        yield
    finally:
        for conn in taken:
            conn.close()


def _order(name: str) -> str:
    return f"{name}::{VALUES[name]}" if name in VALUES else name


def _commit_s(site: Site) -> float:
    """How long a commit takes that has something to write."""
    with psycopg.connect(site.server.url, autocommit=True) as conn:
        conn.execute("create table llmjobs_chaos_commit (n int)")
        began_at = time.monotonic()
        conn.execute("insert into llmjobs_chaos_commit values (1)")
        took_s = time.monotonic() - began_at
        conn.execute("drop table llmjobs_chaos_commit")
    return took_s
