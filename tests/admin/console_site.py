"""A site as operators meet it at three in the morning: four tiers, eight clients, three models of two providers, an
hour and a day of load, a model that fails, dead letters, workers of which two are lost. For pictures of the console.

Rows are put in as the programs would have left them; nothing runs.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import connection, models
from django.db.models.functions import Mod
from django.utils import timezone

from llmjobs.histograms import BOUNDS_S
from llmjobs.models import (
    Attempt,
    BucketKind,
    BucketTurn,
    ClaimsPause,
    Client,
    DeadLetter,
    Flow,
    HandlerCall,
    Incident,
    JobResult,
    Lane,
    Model,
    Operation,
    Tally,
    TallyTime,
    Tier,
    TierSample,
    WebhookDelivery,
    Worker,
)
from tests.admin.hour import make_hour
from tests.factories import make_client, make_job, make_key, make_model, make_provider, make_worker

WEIGHTS = {"enterprise": 8.0, "pro": 4.0, "team": 2.0, "free": 1.0}
CLIENTS = {
    "acme": "enterprise", "umbrella": "enterprise", "globex": "pro", "stark": "pro", "wayne": "team", "initech": "free",
    "hooli": "free", "soylent": "free",
}  # fmt: skip
ERRORS = {"server_error": 5, "timeout": 3, "content_filter": 2, "context_length_exceeded": 1, "malformed_answer": 1}
SHARES = {"enterprise": 0.46, "pro": 0.31, "team": 0.16, "free": 0.07}
TIMED = ("enterprise", "free")  # enough for durations
JOBS_A_MINUTE = 420
AGES_S = {"runner-1": -60, "runner-2": -60, "runner-3": -60, "runner-4": 7.5, "runner-5": 95}  # of heartbeats


@dataclass(frozen=True)
class Site:
    tiers: dict[str, Tier]
    clients: dict[str, Client]
    models: list[Model]
    workers: list[Worker]


def make_site() -> Site:
    Tier.objects.exclude(name__in=WEIGHTS).filter(clients=None).delete()
    tiers = {name: Tier.objects.update_or_create(name=name, defaults={"weight": of})[0] for name, of in WEIGHTS.items()}
    clients = {name: make_client(name, tier=tiers[tier]) for name, tier in CLIENTS.items()}
    site = Site(tiers, clients, _models(), _workers())
    _jobs(site)
    _done(site)
    _happened(site)
    _stood(site)
    _beat(site)
    return site


def _models() -> list[Model]:
    openai, vllm = make_provider("openai"), make_provider("vllm-eu")
    models = [
        make_model("gpt-4.1-mini", provider=openai, rpm=600, tpm=200_000),
        make_model("gpt-4.1", provider=openai, rpm=300, tpm=90_000),
        make_model("llama-3.3-70b", provider=vllm, rpm=1_200, tpm=900_000),
    ]
    blocked = {"blocked_by": "provider_down", "blocked_until": time.time() + 40}
    for number, model in enumerate(models):
        make_hour(model, rpm=model.rpm or 0, tpm=model.tpm or 0)
        BucketTurn.objects.create(
            kind=BucketKind.POOL, of_id=model.pk, turn=1, queued=(611, 1_204, 35)[number], running=(41, 0, 62)[number],
            moved_at=time.time(), **(blocked if number == 1 else {}),
        )  # fmt: skip
    incident = Incident.objects.create(
        provider=openai, pool=models[1], reason="provider_down", words="The server is overloaded. Please retry later."
    )
    later = Incident.objects.create(kind="backlog", level="warning", tier=Tier.objects.get(name="free"), words="")
    for row, minutes in ((incident, 17), (later, 6)):
        Incident.objects.filter(pk=row.pk).update(opened_at=timezone.now() - timedelta(minutes=minutes))
    return models


def _workers() -> list[Worker]:
    return [
        make_worker(
            host=host, pid=4_000 + number, slots=64, is_draining=host == "runner-3",
            tiers=["enterprise"] if host == "runner-2" else [],
        )
        for number, host in enumerate(AGES_S)
    ]  # fmt: skip


def _beat(site: Site) -> None:
    """Last: a heartbeat is young for some seconds only."""
    for worker in site.workers:
        Worker.objects.filter(pk=worker.pk).update(heartbeat_at=timezone.now() - timedelta(seconds=AGES_S[worker.host]))


def _jobs(site: Site) -> None:
    clients, models = list(site.clients.values()), site.models
    for number in range(12):
        make_job(client=clients[number % 8], model=models[number % 3])
    for number in range(9):
        worker = site.workers[number % 2]
        make_job("running", client=clients[number % 8], model=models[0], worker_id=worker.pk)
    for code, jobs in ERRORS.items():
        for number in range(jobs):
            state = "failed" if code in ("context_length_exceeded", "content_filter") else "dead"
            job = make_job(state, client=clients[number % 8], model=models[1])
            JobResult.objects.filter(job=job).update(error_code=code)
            since = timezone.now() - timedelta(minutes=3 * number + 1)
            about = {"pool": job.pool, "client": job.client, "tier": job.tier, "error_class": "unknown"}
            DeadLetter.objects.update_or_create(
                job=job, defaults={"state": state, "error_code": code, "since": since, **about}
            )
    Attempt.objects.update(waited_s=1.4 + Mod("id", 7))


def _done(site: Site) -> None:
    """What operators and programs left, a row of each other table at least, so that every page has a picture."""
    acme, job = site.clients["acme"], DeadLetter.objects.select_related("job").earliest("pk").job
    make_key(acme)
    ago = timezone.now() - timedelta(minutes=4)
    Operation.objects.create(
        verb="requeue", username="ada", reason="the provider is back", selection="all with status dead, model gpt-4.1",
        total=104_200, changed=61_147, skipped={"waiting already": 65}, started_at=ago,
        last_step_at=timezone.now(), next_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip
    ClaimsPause.objects.create(by="ada", reason="maintenance", resumed_at=timezone.now(), resumed_by="grace")
    HandlerCall.objects.create(job=job, epoch=job.epoch, handler="shop.handlers.save", error="ValueError: no order")
    WebhookDelivery.objects.create(
        job=job, client=acme, epoch=job.epoch, type="job.dead", url="https://hooks.example/acme", tries=9
    )
    flow = Flow.objects.create(pool=site.models[0], client=acme)
    Lane.objects.create(flow=flow, priority=5, size=0)


def load(age_s: float) -> float:
    """Of what is usual, so long ago: it rises through the day, and fell to a third while the provider failed."""
    wave = 0.75 + 0.35 * math.sin(age_s / 14_000) + 0.06 * math.sin(age_s / 530 + math.sin(age_s / 1_700))
    return wave * (0.35 if 300 < age_s < 1_020 else 1.0)


def _happened(site: Site) -> None:
    tallies: list[tuple[Any, ...]] = []
    times: list[tuple[Any, ...]] = []
    for period_s, points in ((60, 60), (600, 145)):
        begin = timezone.now().timestamp() // period_s * period_s
        for number in range(points):
            at, age_s = datetime.fromtimestamp(begin - number * period_s, tz=UTC), number * period_s
            for name, tier in site.tiers.items():
                grain = (period_s, at, tier.pk)
                jobs = JOBS_A_MINUTE * period_s / 60 * SHARES[name] * load(age_s)
                tallies += [(*grain, *of) for of in _tallies(jobs, is_bad=load(age_s) < 0.5)]
                if name in TIMED:
                    slow = 1 / max(0.2, load(age_s))
                    times += [(*grain, *of) for of in _times(jobs, 0.6 * slow**2 / tier.weight**0.3, 2.4 * slow)]
    grain_columns = ("period_s", "at", "tier_id")
    copy(Tally, (*grain_columns, "of", "word", "number", "input_tokens", "output_tokens", "usd"), tallies)
    copy(TallyTime, (*grain_columns, "measure", "le_s", "number", "sum_s"), times)


def _tallies(jobs: float, *, is_bad: bool) -> Iterator[tuple[Any, ...]]:
    failed = 0.06 if is_bad else 0.004
    words = {
        "submitted": 1.02, "started": 1, "retried": failed, "completed": 0.985 - failed, "failed": 0.004,
        "dead": failed / 3,
    }  # fmt: skip
    for word, share in words.items():
        yield "job", word, round(jobs * share), 0, 0, 0
    yield (
        "attempt",
        "completed",
        round(jobs),
        round(jobs * 810),
        round(jobs * 260),
        Decimal(round(jobs * 740)) / 1_000_000,
    )
    if is_bad:
        yield "attempt", "rate_limited", round(jobs * 0.03), 0, 0, 0


def _times(jobs: float, usual_wait_s: float, usual_run_s: float) -> Iterator[tuple[Any, ...]]:
    for measure, usual_s in (("wait", usual_wait_s), ("run", usual_run_s)):
        for low, le_s in zip((0.0, *BOUNDS_S), BOUNDS_S, strict=False):
            if number := round(jobs * (_below(le_s, usual_s) - _below(low, usual_s))):
                yield measure, le_s, number, number * (low + le_s) / 2


def _below(bound_s: float, usual_s: float) -> float:
    """How many of all take less, where the logarithm is normal: as durations mostly are."""
    return 0.0 if bound_s <= 0 else 0.5 + 0.5 * math.erf(math.log(bound_s / usual_s) / 1.2)


def _stood(site: Site) -> None:
    now = timezone.now()
    rows = [
        (
            tier.pk, now - timedelta(seconds=age_s), round(900 / load(age_s) ** 1.5 * SHARES[name] / tier.weight),
            round(60 * SHARES[name]), 3, 45 / load(age_s) ** 2 / tier.weight,
        )
        for name, tier in site.tiers.items()
        for age_s in (*range(0, 4_000, 60), *range(4_000, 90_000, 600))
    ]  # fmt: skip
    copy(TierSample, ("tier_id", "at", "queued", "running", "scheduled", "oldest_s"), rows)


def copy(table: type[models.Model], columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Twenty times as fast as bulk_create."""
    statement = f"copy {table._meta.db_table} ({', '.join(columns)}) from stdin"
    with connection.cursor() as cursor, cursor.copy(statement) as into:
        for row in rows:
            into.write_row(row)
