"""Rows for tests. A factory fills what a state implies, so that each row satisfies the CHECKs and reads like
one that the verbs made.

Owns no rule: the verbs of `queue.py` are tested through themselves, everything else may begin with a job that
is already where it should be. A `queued` job has its inbox row, so that the next claim finds it. A job past
that was never charged: its flow's turns know nothing of it. Tests that commit (`transaction=True`) lose what
the migrations seeded at the flush; the factories put back what they need.
"""

import hashlib
import itertools
import json
import uuid
from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models.expressions import RawSQL
from django.utils import timezone

from llmjobs import queue
from llmjobs.models import (
    ApiKey,
    Attempt,
    Client,
    Inbox,
    Job,
    JobEvent,
    JobRequest,
    JobResult,
    Model,
    Provider,
    ShardTurn,
    Tier,
    Turnstile,
    Worker,
)
from llmjobs.states import DEAD_LETTERS, SEQ_EPOCH, TERMINAL, Endpoint, EventType, Priority, Size, State

_numbers = itertools.count(1)

# The states that a job passed on its way to this one, which number its epochs and its status events.
PATHS: dict[State, list[State]] = {
    State.SCHEDULED: [State.SCHEDULED],
    State.QUEUED: [State.QUEUED],
    State.RUNNING: [State.QUEUED, State.RUNNING],
    State.COMPLETED: [State.QUEUED, State.RUNNING, State.COMPLETED],
    State.FAILED: [State.QUEUED, State.RUNNING, State.FAILED],
    State.DEAD: [State.QUEUED, State.RUNNING, State.DEAD],
    State.CANCELLED: [State.QUEUED, State.CANCELLED],
    State.EXPIRED: [State.QUEUED, State.EXPIRED],
}
ERRORS = {
    State.FAILED: ("context_length_exceeded", "The prompt is too long for the model.", "deterministic", 400),
    State.DEAD: ("server_error", "The provider had an error.", "unknown", 500),
    State.EXPIRED: ("expired", "Not started before its deadline.", "deterministic", None),
}


def make_tier(name: str | None = None, **fields: Any) -> Tier:
    return Tier.objects.create(name=name or f"tier-{next(_numbers)}", **fields)


def make_client(name: str | None = None, *, tier: Tier | str | None = None, **fields: Any) -> Client:
    """`tier` may be a name; the tier is made if there is none of that name."""
    if not isinstance(tier, Tier):
        tier, _ = Tier.objects.get_or_create(name=tier or "free")
    return Client.objects.create(name=name or f"client-{next(_numbers)}", tier=tier, **fields)


def make_key(client: Client | None = None, **fields: Any) -> str:
    """The key itself, as a caller would hold it; `ApiKey.objects.latest("id")` is its row."""
    _, key = ApiKey.objects.issue(client or make_client(), **fields)
    return key


def make_groups() -> None:
    """Viewers, operators, administrators: the migration's, which the flush after a test that commits takes out."""
    with connection.schema_editor() as editor:
        import_module("llmjobs.migrations.0021_roles").make_groups(apps, editor)


def make_user(
    *clients: Client, username: str | None = None, is_staff: bool = False, permissions: tuple[str, ...] = ()
) -> User:
    """A user who belongs to `clients`, with password "password"; `permissions` are codenames of this app,
    such as "view_job".
    """
    user = User.objects.create_user(username or f"user-{next(_numbers)}", password="password", is_staff=is_staff)
    user.llmjobs_clients.set(clients)
    if permissions:
        found = list(Permission.objects.filter(content_type__app_label="llmjobs", codename__in=permissions))
        assert len(found) == len(permissions), f"expected permissions {permissions}, found {found}"
        user.user_permissions.set(found)
    return user


def make_provider(name: str | None = None, *, base_url: str = "http://127.0.0.1:9/v1", **fields: Any) -> Provider:
    """Nothing listens on port 9: a call that should not happen fails at once."""
    return Provider.objects.create(name=name or f"provider-{next(_numbers)}", base_url=base_url, **fields)


def make_model(name: str | None = None, *, provider: Provider | None = None, **fields: Any) -> Model:
    shard, _ = Turnstile.objects.get_or_create(id=1)
    ShardTurn.objects.get_or_create(shard=shard, defaults={"turn": 0})
    ample = {"rpm": 60_000_000, "tpm": 2_000_000_000}  # no limit that a test would meet without asking for it
    name = name or f"model-{next(_numbers)}"
    return Model.objects.create(name=name, provider=provider or make_provider(), **{**ample, **fields})


def make_worker(**fields: Any) -> Worker:
    return Worker.objects.create(**{"host": "testhost", "pid": 4242, "version": "0", "slots": 64, **fields})


def make_job(
    state: State | str = State.QUEUED,
    *,
    client: Client | None = None,
    model: Model | None = None,
    body: dict[str, Any] | None = None,
    output_text: str = "Hello there.",
    request: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
    **fields: Any,
) -> Job:
    """A job in `state` with everything that it implies; `fields`, `request`, `result` override columns of the
    three rows.
    """
    state = State(state)
    client = client or make_client()
    model = model or make_model()
    passed = PATHS[state]
    job = Job.objects.create(
        **{
            "pool": model, "client": client, "tier": client.tier, "state": state, "epoch": len(passed),
            "endpoint": Endpoint.CHAT, "priority": Priority.NORMAL, "size": Size.SHORT,
            "lane_order": RawSQL("nextval('llmjobs_lane_order')", ()),
            "est_input_tokens": 8, "est_output_tokens": 32, "est_cost": 40.0,
            "max_attempts": 5, "timeout_s": 120, "retry_for_s": 86_400,
            **_times(state), **fields,
        }
    )  # fmt: skip
    job.refresh_from_db()
    _add_request(job, body, **(request or {}))
    _add_result(job, output_text, **(result or {}))
    if state in DEAD_LETTERS:
        queue.restore([job.pk])  # a job that is made dead did not become so
    if State.RUNNING in passed:
        _add_attempt(job)
    if state == State.QUEUED:
        _tell_the_claim(job)
    _add_events(job, passed, output_text)
    return Job.objects.get(pk=job.pk)


def _times(state: State) -> dict[str, Any]:
    now = timezone.now()
    times: dict[str, Any] = {"retry_until": now + timedelta(days=1)}
    if state == State.SCHEDULED:
        times["available_at"] = now + timedelta(hours=1)
    if State.RUNNING in PATHS[state]:
        times |= {"started_at": now, "attempt": 1}
    if state == State.RUNNING:
        times["worker_id"] = uuid.uuid4()
    if state in (State.FAILED, State.DEAD):
        times["failures"] = 1
    if state == State.CANCELLED:
        times["cancel_requested_at"] = now
    if state == State.EXPIRED:
        times["expires_at"] = now
    if state in TERMINAL:
        times["finished_at"] = now
    return times


def _add_request(job: Job, body: dict[str, Any] | None, **fields: Any) -> None:
    body = body or {"model": job.pool.name, "messages": [{"role": "user", "content": "Say hello."}]}
    text = json.dumps(body)
    digest = hashlib.sha256(f"{job.endpoint}\n{job.pool.name}\n{text}".encode()).hexdigest()
    values = {"client": job.client, "body": text, "prompt_hash": f"sha256:{digest}", "metadata": {}}
    JobRequest.objects.create(job=job, **{**values, **fields})


def _add_result(job: Job, output_text: str, **fields: Any) -> None:
    values: dict[str, Any] = {}
    if job.state == State.COMPLETED:
        message = {"role": "assistant", "content": output_text}
        usage = {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        output = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": job.pool.name,
            "choices": choices,
            "usage": usage,
        }
        values = {
            "output": json.dumps(output),
            "output_text": output_text,
            "usage": usage,
            "cost_usd": Decimal("0.0001"),
        }
    elif job.state in ERRORS:
        code, message_text, error_class, status = ERRORS[State(job.state)]
        values = {
            "error_code": code, "error_message": message_text, "error_class": error_class,
            "provider_status": status, "error_attempt": job.attempt,
        }  # fmt: skip
    if values or fields:
        JobResult.objects.create(job=job, **{**values, **fields})


def _add_attempt(job: Job) -> None:
    ended: dict[str, Any] = {}
    if job.state == State.COMPLETED:
        ended = {
            "outcome": "completed",
            "input_tokens": 8,
            "output_tokens": 3,
            "cost": 11.0,
            "cost_usd": Decimal("0.0001"),
        }
    elif job.state in ERRORS:
        code, message, _, status = ERRORS[State(job.state)]
        outcome = "deterministic" if job.state == State.FAILED else "unknown"
        ended = {"outcome": outcome, "error_code": code, "error_message": message, "provider_status": status}
    if ended:
        ended["ended_at"] = job.finished_at
    Attempt.objects.create(
        job=job, number=job.attempt, pool=job.pool, client=job.client, tier=job.tier,
        worker_id=job.worker_id or uuid.uuid4(), waited_s=0.0,
        charged=job.est_cost, flow_weight=job.client.weight, tier_weight=job.tier.weight,
        claimed_at=job.started_at or timezone.now(), **ended,
    )  # fmt: skip


def _tell_the_claim(job: Job) -> None:
    Inbox.objects.create(
        pool=job.pool,
        client=job.client,
        priority=job.priority,
        size=job.size,
        queued=1,
        head_order=job.lane_order,
        head_at=job.available_at,
    )


def _add_events(job: Job, passed: list[State], output_text: str) -> None:
    """One status event an epoch; a completed job also has said its text; a terminal one is done."""
    events = []
    for epoch, state in enumerate(passed, start=job.epoch - len(passed) + 1):
        seq = epoch * SEQ_EPOCH
        if state in TERMINAL:
            events.append(JobEvent(job=job, seq=seq, type=EventType.DONE, data={"status": state}))
            continue
        attempt = job.attempt if state == State.RUNNING else 0
        events.append(JobEvent(job=job, seq=seq, type=EventType.STATUS, data={"status": state, "attempt": attempt}))
        if state == State.RUNNING and job.state == State.COMPLETED:
            events.append(JobEvent(job=job, seq=seq + 1, type=EventType.DELTA, data={"text": output_text}))
    JobEvent.objects.bulk_create(events)
