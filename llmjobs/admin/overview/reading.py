"""What the overview shows, read: what is wrong, how it stands now, what happened in the last hour or day.

Owns which questions are asked and how often; page.py owns how it looks and who may see it. Every part is a fixed number
of statements over counts, tallies, turns and samples, whatever the number of jobs, clients and models: none reads the
jobs, but for those that a few workers hold. All consoles of a process share what was read for a moment. Numbers only,
and what providers said of incidents: no prompt, no output.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar

from django.db import DatabaseError, connection
from django.db.models import Count, Max, Sum
from django.utils import timezone

from llmjobs import tallies, watch
from llmjobs.admin import last_hour
from llmjobs.admin.workers import state_of
from llmjobs.conf import conf
from llmjobs.incidents import open_incidents
from llmjobs.models import DeadLetter, Incident, Job, PoolSample, Tally, Worker
from llmjobs.pinning import pinned
from llmjobs.samples import TOLD_S
from llmjobs.sql import load
from llmjobs.stats import queue_stats

logger = logging.getLogger("llmjobs.watch")

Period = Literal["hour", "day"]
T = TypeVar("T")

INCIDENTS_MAX, INCIDENTS_READ_MAX = 8, 100
POOLS_MAX = 9
WORKERS_MAX = 8
WORKERS_READ_MAX = 500
DEAD_LETTERS_MAX = 8
LOST_FOR = timedelta(hours=1)  # a worker that was lost longer ago is no news
TOTALS = (
    "submitted", "started", "completed", "failed", "dead", "cancelled", "expired", "retries", "refusals", "lease_lost",
    "input_tokens", "output_tokens", "usd",
)  # fmt: skip
SAMPLES_SINCE = timedelta(minutes=65)  # the one before the hour tells what the first of it brought

# For how long what was read is shown to others who ask. What reaches over a day changes slowly, and costs more.
NOW_S, HOUR_S, DAY_S, TODAY_S, POOLS_S, DEAD_LETTERS_S = 0.9, 5.0, 30.0, 10.0, 5.0, 10.0


@dataclass(frozen=True, slots=True)
class Pool:
    """A model. `moments`: of its last hour; none if nothing happened. `blocked_until_s` is of the Unix clock."""

    id: int
    name: str
    provider_id: int
    provider: str
    is_paused: bool
    blocked_by: str | None
    blocked_until_s: float | None
    rpm: float
    tpm: float
    queued: int
    running: int
    provider_queued: int
    moments: Sequence[last_hour.Moment]


@dataclass(frozen=True, slots=True)
class Pools:
    """`shown`: those in trouble first, then those in use. `total` and `stopped` are of all."""

    shown: Sequence[Pool]
    total: int
    stopped: int


@dataclass(frozen=True, slots=True)
class LivingWorker:
    id: Any
    name: str
    state: str
    slots: int
    held: int
    heartbeat_age_s: float
    serves: str


@dataclass(frozen=True, slots=True)
class Workers:
    """`slots`: of those that are live and not draining. `by_state`: how many of all that did not stop by themselves."""

    shown: Sequence[LivingWorker]
    total: int
    slots: int
    by_state: dict[str, int]


@dataclass(frozen=True, slots=True)
class DeadGroup:
    error_code: str
    jobs: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetters:
    shown: Sequence[DeadGroup]
    total: int
    groups: int


@dataclass(frozen=True, slots=True)
class Overview:
    """`moments` are those of `period` that are over; `totals`, by their names, of all of it; `minute` is the last whole
    one, whatever the period.
    """

    period: Period
    read_at: datetime
    incidents: Sequence[Incident]
    incident_count: int
    stats: dict[str, Any]
    tiers: Sequence[tallies.TierNow]
    minute: tallies.Moment
    moments: Sequence[tallies.Moment]
    totals: dict[str, Any]
    today_usd: Decimal
    pools: Pools
    workers: Workers
    dead_letters: DeadLetters


def read(period: Period) -> Overview:
    hour = _kept("hour", HOUR_S, lambda: tallies.moments("hour"))
    moments = hour if period == "hour" else _kept("day", DAY_S, lambda: tallies.moments("day"))
    incidents = _kept("incidents", NOW_S, lambda: open_incidents(INCIDENTS_READ_MAX))
    return Overview(
        period=period,
        read_at=timezone.now(),
        incidents=incidents[:INCIDENTS_MAX],
        incident_count=len(incidents),
        stats=_kept("stats", NOW_S, queue_stats),
        tiers=_kept("tiers", NOW_S, tallies.tiers_now),
        minute=hour[-2],
        moments=moments[:-1],
        totals={name: sum(getattr(moment, name) for moment in moments) for name in TOTALS},
        today_usd=_kept("today", TODAY_S, _today_usd),
        pools=_kept("pools", POOLS_S, _pools),
        workers=_kept("workers", NOW_S, _workers),
        dead_letters=_kept("dead_letters", DEAD_LETTERS_S, _dead_letters),
    )


def look() -> None:
    """Whether something is wrong, where nobody else looks: no worker lives, and no WebSocket keeps the watch."""
    try:
        watch.look_here()
    except DatabaseError as error:  # what was known is shown
        logger.warning("event=watch_failed reason=%r", str(error).strip().partition("\n")[0])


def forget() -> None:
    """What was read is asked for anew: for tests, in which another database may stand behind the connection."""
    with _lock:
        _found.clear()


# What was read, by part; one reads, the others wait for what it finds.

_found: dict[str, tuple[float, Any]] = {}
_lock = threading.RLock()


def _kept(part: str, for_s: float, read: Callable[[], T]) -> T:
    with _lock:
        until, value = _found.get(part, (0.0, None))
        if time.monotonic() >= until:
            value = read()
            _found[part] = (time.monotonic() + for_s, value)
        return value


def _pools() -> Pools:
    rows = _rows("overview_pools", rows=POOLS_MAX)
    if not rows:
        return Pools((), 0, 0)
    samples: dict[int, list[last_hour.Sample]] = {row[0]: [] for row in rows}
    names = ("requests", "tokens", "refusals", "queued", "running", "rpm", "tpm", "blocked_by")
    found = PoolSample.objects.filter(pool__in=list(samples), at__gte=timezone.now() - SAMPLES_SINCE)
    for pool_id, at, *values in found.order_by("pool", "at").values_list("pool_id", "at", *names):
        samples[pool_id].append(last_hour.Sample(at.timestamp(), *values))
    now_s = time.time()
    shown = [Pool(*(*row[:12], last_hour.last_hour(samples[row[0]], now_s))) for row in rows]
    return Pools(shown, total=rows[0][12], stopped=rows[0][13])


def _rows(name: str, **literals: int) -> list[tuple[Any, ...]]:
    params = {"default_rpm": conf.default_rpm, "default_tpm": conf.default_tpm, "told_s": TOLD_S}
    with pinned(), connection.cursor() as cursor:
        cursor.execute(load(name, **literals), params)
        return list(cursor.fetchall())


def _workers() -> Workers:
    """Those in trouble first, then those that hold most."""
    now = timezone.now()
    found = Worker.objects.filter(stopped_at=None, heartbeat_at__gte=now - LOST_FOR).order_by("-heartbeat_at")
    workers = list(found[:WORKERS_READ_MAX])
    states = {worker.pk: _state(worker, now) for worker in workers}
    workers.sort(key=lambda worker: (states[worker.pk] not in ("late", "lost"), worker.host, worker.pid))
    shown = workers[:WORKERS_MAX]
    running = Job.objects.filter(state="running", worker_id__in=[worker.pk for worker in shown]).order_by()
    held = dict(running.values_list("worker_id").annotate(jobs=Count("pk")))
    by_state: dict[str, int] = {}
    for state in states.values():
        by_state[state] = by_state.get(state, 0) + 1
    return Workers(
        [
            LivingWorker(
                worker.pk, str(worker), states[worker.pk], worker.slots, held.get(worker.pk, 0),
                max(0.0, (now - worker.heartbeat_at).total_seconds()), ", ".join([*worker.pools, *worker.tiers]),
            )
            for worker in shown
        ],
        total=len(workers),
        slots=sum(worker.slots for worker in workers if states[worker.pk] == "live"),
        by_state=by_state,
    )  # fmt: skip


def _state(worker: Worker, now: datetime) -> str:
    state = state_of(worker.heartbeat_at, worker.stopped_at, now)
    return "draining" if state == "live" and worker.is_draining else state


def _dead_letters() -> DeadLetters:
    groups = DeadLetter.objects.order_by().values_list("error_code").annotate(jobs=Count("pk"), last_at=Max("since"))
    found = sorted((DeadGroup(*group) for group in groups), key=lambda group: (-group.jobs, group.error_code))
    return DeadLetters(found[:DEAD_LETTERS_MAX], total=sum(group.jobs for group in found), groups=len(found))


def _today_usd() -> Decimal:
    """What was spent since the day began, in the zone that the admin shows times in: of some thousand tallies."""
    of_ten_minutes_s, _ = tallies.MOMENTS["day"]
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    spent = Tally.objects.filter(period_s=of_ten_minutes_s, at__gte=midnight, of="attempt").aggregate(usd=Sum("usd"))
    return spent["usd"] or Decimal(0)
