"""What may wait: jobs and tokens of a client, jobs of all. Told here, decided by the database when a submit commits.

A trigger of the migration `0004_counts` counts under a lock that lives as long as the commit, so the client's limits
are exact, and nobody waits for a transaction that is open. Inside a caller's transaction `refuse_if_full` looks before,
without a lock: a refusal at once, where the commit might be far.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connection

from llmjobs.conf import conf
from llmjobs.errors import QueueFull
from llmjobs.models import Client
from llmjobs.sql import load

SQLSTATE = "LJ429"  # the trigger's
RETRY_AFTER_S = 30  # for a client that started nothing lately
RETRY_AFTER_MAX_S = 3_600


@contextmanager
def told(client: Client) -> Iterator[None]:
    """Around what may commit a submit: the trigger's refusal becomes QueueFull."""
    try:
        yield
    except DatabaseError as error:
        refusal = error.__cause__
        if getattr(refusal, "sqlstate", None) != SQLSTATE:
            raise
        found = json.loads(refusal.diag.message_detail)  # type: ignore[union-attr]
        raise _full(client, found["limit"], found["most"], found["waiting"]) from error


def refuse_if_full(client: Client, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises QueueFull if there is no room for these rows of a submit, as far as this transaction can see."""
    jobs, tokens, max_queued, max_queued_tokens, backlog = _room(client)
    asked_tokens = sum(row["est_input_tokens"] + row["est_output_tokens"] for row in rows)
    for limit, most, waiting in (
        ("max_queued", max_queued, jobs + len(rows)),
        ("max_queued_tokens", max_queued_tokens, tokens + asked_tokens),
        ("backlog_max", conf.backlog_max, backlog + len(rows)),
    ):
        if most is not None and waiting > most:
            raise _full(client, limit, most, waiting)


def _full(client: Client, limit: str, most: int, waiting: int) -> QueueFull:
    """`waiting`: what would wait with this submit, in the limit's unit."""
    client_id = None if limit == "backlog_max" else client.pk
    whose = "all clients" if client_id is None else client.name
    unit, too_many = "jobs", float(waiting - most)
    if limit == "max_queued_tokens":
        unit, too_many = "estimated tokens", too_many * _jobs_per_token(client)
    return QueueFull(
        f"The queue is full: at most {most:,} {unit} of {whose} may wait ({limit}); with this it would be {waiting:,}.",
        retry_after_s=_retry_after_s(client_id, too_many),
    )


def _jobs_per_token(client: Client) -> float:
    """Of the client's waiting jobs, on average."""
    jobs, tokens, *_ = _room(client)
    return jobs / tokens if tokens else 0.0


def _room(client: Client) -> tuple[int, int, int | None, int | None, int]:
    """Of the client, jobs and tokens that wait, and the most of each; the jobs of all that wait."""
    with connection.cursor() as cursor:
        cursor.execute(load("room"), {"client_id": client.pk, "backlog_max": conf.backlog_max})
        found: tuple[int, int, int | None, int | None, int] = cursor.fetchone()
    return found


def _retry_after_s(client_id: int | None, too_many: float) -> int:
    """Until so many jobs have started, at the pace of the latest starts of the client, or of all."""
    with connection.cursor() as cursor:
        cursor.execute(load("starts"), {"client_id": client_id})
        [starts_per_s] = cursor.fetchone()
    if not starts_per_s:
        return RETRY_AFTER_S
    return min(max(math.ceil(too_many / starts_per_s), 1), RETRY_AFTER_MAX_S)
