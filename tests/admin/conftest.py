"""The superuser's session, and a row of every table."""

import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client as Browser
from django.utils import timezone

from llmjobs.admin.overview import reading as overview
from llmjobs.models import (
    ClaimsPause,
    Flow,
    FlowTurn,
    HandlerCall,
    Inbox,
    Incident,
    Lane,
    LaneTurn,
    Operation,
    TierTurn,
    WebhookDelivery,
)
from tests.admin.pages import TABLES, logged_in, table
from tests.factories import make_client, make_job, make_key, make_model, make_worker


@pytest.fixture(autouse=True)
def fast_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def nothing_was_read() -> None:
    """What the overview keeps for a moment is of another test's rows."""
    overview.forget()


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="password")


@pytest.fixture
def browser(root: User) -> Browser:
    return logged_in(root)


@pytest.fixture
def rows(db: None) -> dict[str, Model]:
    """By the name of the table."""
    make_worker(id=(worker_id := uuid.uuid4()))
    client, model = make_client("acme"), make_model("gpt")
    make_key(client)
    completed = make_job("completed", client=client, model=model)
    HandlerCall.objects.create(job=completed, epoch=completed.epoch, handler="shop.handlers.save")
    WebhookDelivery.objects.create(
        job=completed, client=client, epoch=completed.epoch, type="job.completed", url="https://hooks.example/acme"
    )
    make_job("dead", client=client, model=model)
    make_job("running", client=client, model=model, worker_id=worker_id)
    flow = Flow.objects.create(pool=model, client=client)
    lane = Lane.objects.create(flow=flow, priority=5, size=0)
    FlowTurn.objects.create(flow=flow, turn=1, pool=model, client=client, tier=client.tier, vt=12.5, running=1)
    LaneTurn.objects.create(lane=lane, turn=1, flow=flow, pool=model, tier=client.tier, level=4, queued=3)
    TierTurn.objects.create(pool=model, tier=client.tier, turn=1, vt=99.5, floors=[0.0] * 10)
    Incident.objects.create(provider=model.provider, reason="provider_quota", words="You exceeded your quota.")
    Inbox.objects.create(pool=model, client=client, priority=5, size=0, queued=1)
    Operation.objects.create(verb="requeue", state="done", finished_at=timezone.now(), username="ada", total=2)
    ClaimsPause.objects.create(by="ada", resumed_at=timezone.now(), resumed_by="ada")
    return {name: found for name in TABLES if (found := table(name)._default_manager.first())}
