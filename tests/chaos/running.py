"""One scenario from its empty database to its verdict.

Owns the order: open, load and faults side by side, heal, wait, stop everybody, judge. Invariant: whatever a scenario
raises, its processes are gone and its row says what happened.
"""

import json
import random
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from django.db import connections

from llmjobs.models import ApiKey, Client
from llmjobs.testing import SimulatorProcess
from tests.bench import databases
from tests.chaos import asked, invariants, recovery
from tests.chaos.invariants import Evidence, Verdict
from tests.chaos.scenarios import PROVIDER_AWAY, Scenario, Tempo
from tests.chaos.server import Server
from tests.chaos.site import PROVIDER_KEY, Site

IDLE_WITHIN_S = 180
BEGUN_JOBS = 20
FOLLOWED_WITHIN_S = 60


@dataclass(slots=True)
class Row:
    """Of the table. `broken` is empty where all went well."""

    name: str
    title: str
    jobs: int = 0
    faults: int = 0
    lost: int = 0
    repeats: int = 0
    unexplained: int = 0
    recovery_s: float = 0
    recovery_of: str = ""
    seconds: float = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """What all scenarios of a run share."""

    server: Server
    simulator: SimulatorProcess
    logs: Path
    seed: int
    tempo: Tempo
    settings: dict[str, str]
    progress: Callable[[str], None]

    def play(self, name: str, scenario: Scenario) -> Row:
        row, began_at = Row(name, scenario.title), time.monotonic()
        database = databases.fresh()
        with databases.using(database):
            try:
                self._play(row, scenario)
            except Exception as error:  # a scenario that breaks down is a finding, and the others go on
                row.broken.append(f"{type(error).__name__}: {error}")
                (self.logs / row.name / "traceback").write_text(traceback.format_exc())
            finally:
                connections.close_all()
                self.server.recover()
        if not row.broken:
            databases.drop(database)
        row.seconds = time.monotonic() - began_at
        self.progress(f"{name}: {'; '.join(row.broken) or 'nothing is broken'}, after {row.seconds:.0f} s")
        return row

    def _play(self, row: Row, scenario: Scenario) -> None:
        self.simulator.reset()
        logs = self.logs / row.name
        logs.mkdir()
        dice = random.Random(f"{self.seed} {row.name}")

        def say(words: str) -> None:
            self.progress(f"{row.name}: {words}; {len(site.load.accepted)} accepted, {site.count_open()} open")

        site = Site(self.server, self.simulator, logs, dice, self.settings | dict(scenario.settings), say)
        try:
            self.progress(f"{row.name}: {scenario.title}")
            site.open(
                worker_count=scenario.worker_count, bad_webhooks=scenario.bad_webhooks, clocks_s=scenario.clocks_s
            )
            self._load(site, scenario)
            scenario.play(site, self.tempo)
            site.load.end()
            self._finish(site, say)
            row.broken += self._evaluate(row, site, scenario)
        finally:
            site.close()

    def _load(self, site: Site, scenario: Scenario) -> None:
        """Returns when it has begun: a fault that meets nobody proves nothing."""
        jobs = asked.jobs(
            site.dice.randrange(2**31),
            webhook_url=site.receiver.url,
            webhook_share=scenario.webhook_share,
            watched_share=scenario.watched_share,
        )
        least = max(20, round(scenario.jobs * self.tempo.scale))
        site.load.start(jobs, per_s=scenario.jobs / scenario.span_s, least=least)
        site.until(lambda: len(site.load.accepted) >= BEGUN_JOBS, "jobs that were accepted", 30)

    def _finish(self, site: Site, say: Callable[[str], None]) -> None:
        while site.load.is_submitting():
            site.pause(1)
            say("submitting")
        site.heal()
        with suppress(TimeoutError):  # the verdict says what did not end
            site.until(site.is_idle, "every job ended and told of", IDLE_WITHIN_S)
        site.load.finish(FOLLOWED_WITHIN_S)
        site.stop_all()

    def _evaluate(self, row: Row, site: Site, scenario: Scenario) -> list[str]:
        connections.close_all()
        evidence = Evidence(
            accepted=site.load.accepted.keys(),
            calls=self.simulator.ledger(),
            views=site.load.views,
            heard=site.receiver.heard,
            may_repeat=scenario.may_repeat,
            was_away=any(fault.kind == PROVIDER_AWAY for fault in site.faults),
        )
        verdict: Verdict = invariants.judge(evidence)
        row.jobs, row.faults = len(site.load.accepted), len(site.faults)
        row.lost, row.repeats, row.unexplained = verdict.lost, verdict.repeats, verdict.unexplained
        row.recovery_s, row.recovery_of = recovery.slowest(site.faults, site.load.views)
        broken = [*verdict.broken, *_leaks(site)]
        if row.recovery_s > self.tempo.recovery_max_s:
            broken.append(f"{row.recovery_of}: served again after {row.recovery_s:.1f} s")
        if broken:
            _keep(site, evidence)
        return broken


def _keep(site: Site, evidence: Evidence) -> None:
    """What was seen outside of the database, which is kept too, beside the logs."""
    kept = {
        "faults": [asdict(fault) for fault in site.faults],
        "accepted": {public_id: asdict(one) for public_id, one in site.load.accepted.items()},
        "views": [asdict(view) for view in evidence.views],
        "calls": list(evidence.calls),
    }
    (site.logs / "evidence.json").write_text(json.dumps(kept, default=str))


def _leaks(site: Site) -> list[str]:
    """No key, secret, prompt or password is in any log line."""
    secrets = [PROVIDER_KEY, asked.SECRET_WORDS, *site.keys.values()]
    secrets += Client.objects.values_list("webhook_secret", flat=True)
    secrets += ApiKey.objects.values_list("hash", flat=True)
    found = []
    for log in sorted(site.logs.glob("*.log")):
        text = log.read_text(errors="replace")
        found += [f"{log.name} has {secret[:12]}…" for secret in secrets if secret in text]
    return found
