"""What the watch finds wrong, a scene a kind: each makes it so, and returns what mends it. And who is told of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from llmjobs import pauses
from llmjobs.database import dsn
from llmjobs.models import (
    BucketKind,
    BucketTurn,
    Client,
    DeadLetter,
    Job,
    Model,
    PoolSample,
    Spending,
    Tier,
    WebhookDelivery,
    Worker,
)
from tests.factories import make_client, make_job, make_model
from tests.postgres.test_incidents import Receiver

LONG_AGO = timedelta(minutes=10)


def a_month() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("select llmjobs_month(statement_timestamp())")
        return cursor.fetchone()[0]


def old_job(**fields: Any) -> Job:
    return make_job(available_at=timezone.now() - LONG_AGO, **fields)


def a_backlog(_: ExitStack) -> Callable[[], Any]:
    old_job(client=make_client(tier="pro"))
    return lambda: Job.objects.update(available_at=Now())


def no_worker(_: ExitStack) -> Callable[[], Any]:
    Tier.objects.update(backlog_target_s=3600)
    old_job()
    Worker.objects.update(heartbeat_at=timezone.now() - LONG_AGO)
    return lambda: Worker.objects.update(heartbeat_at=Now())


def blocked(_: ExitStack) -> Callable[[], Any]:
    model, now = make_model("gpt"), timezone.now()
    BucketTurn.objects.create(
        kind=BucketKind.POOL,
        of_id=model.pk,
        turn=1,
        queued=7,
        blocked_by="rate_limit",
        blocked_until=now.timestamp() + 60,
    )
    for ago_s in (130, 90, 45, 15):
        sample(model, ago_s, blocked_by="rate_limit")
    return lambda: BucketTurn.objects.update(blocked_by=None, blocked_until=None)


def sample(model: Model, ago_s: float, **fields: Any) -> None:
    numbers = {"requests": 0, "tokens": 0, "refusals": 0, "queued": 7, "running": 0, "rpm": 1, "tpm": 1}
    PoolSample.objects.create(pool=model, at=timezone.now() - timedelta(seconds=ago_s), **numbers, **fields)


def claims_paused(_: ExitStack) -> Callable[[], Any]:
    pauses.pause_claims(by="ann", reason="The provider mends something.")
    return lambda: pauses.resume_claims(by="ann")


def dead_letters(_: ExitStack, count: int = 25, ago_s: float = 5) -> Callable[[], Any]:
    client, model = make_client(), make_model()
    first, since = (DeadLetter.objects.count() + 1) * 1_000, timezone.now() - timedelta(seconds=ago_s)
    DeadLetter.objects.bulk_create(
        DeadLetter(
            job_id=first + n,
            state="dead",
            error_code="server_error",
            pool=model,
            client=client,
            tier=client.tier,
            since=since,
        )
        for n in range(count)
    )
    return lambda: DeadLetter.objects.all().delete()


def a_budget(_: ExitStack) -> Callable[[], Any]:
    client = make_client("acme", monthly_budget_usd=100)
    Spending.objects.create(client=client, month=a_month(), usd=85)
    return lambda: Client.objects.update(monthly_budget_usd=1000)


def webhooks(_: ExitStack) -> Callable[[], Any]:
    client, now = make_client(), timezone.now()
    rows = [
        WebhookDelivery(
            job_id=n, client=client, epoch=1, type="job.dead", url="https://hooks.example/a", tries=9,
            **({"state": "failed", "ended_at": now} if n % 2 else {"state": "pending"}),
        )
        for n in range(1, 25)
    ]  # fmt: skip
    WebhookDelivery.objects.bulk_create(rows)
    return lambda: WebhookDelivery.objects.all().delete()


def a_snapshot(stack: ExitStack) -> Callable[[], Any]:
    held = stack.enter_context(psycopg.connect(**dsn() | {"application_name": "nightly-report", "autocommit": True}))
    held.execute("begin isolation level repeatable read")
    held.execute("select count(*) from llmjobs_tier")
    return lambda: held.execute("rollback")


SCENES = {
    "backlog": a_backlog, "no_worker": no_worker, "blocked": blocked, "claims_paused": claims_paused,
    "dead_letters": dead_letters, "budget": a_budget, "webhooks": webhooks, "snapshot": a_snapshot,
}  # fmt: skip
SAID = {
    "backlog": "Backlog of tier pro since ",
    "no_worker": "No worker since ",
    "blocked": "gpt at ",
    "claims_paused": "Paused by ann at ",
    "dead_letters": "25 in ten minutes; usual are 0. Most: server_error in model-",
    "budget": "$85.00 of $100.00 are spent this month",
    "webhooks": "12 were tried 3 times or more; to 1 receivers, most to hooks.example: 24.",
    "snapshot": "Session 'nightly-report' of ",
}


@pytest.fixture
def hook(settings: Any) -> Iterator[Receiver]:
    """The operators' webhook."""
    hook = Receiver()
    settings.LLMJOBS_OPERATOR_WEBHOOK_URL = hook.url
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
