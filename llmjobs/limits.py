"""What may wait, and what it may cost: jobs and tokens of a client, its month's budget, jobs of all.

Told here, decided by the database when a submit commits: a trigger of the migration `0008_budgets` counts under a lock
that lives as long as the commit, so the client's limits are exact, and nobody waits for a transaction that is open.
Inside a caller's transaction `refuse_if_full` looks before, without a lock: a refusal at once, where the commit might
be far. A client's limits a minute refuse only who asked for that (`when_limited`); for the others they are a wait.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from django.db import DatabaseError

from llmjobs.conf import conf
from llmjobs.database import prepared_cursor
from llmjobs.errors import InsufficientQuota, InvalidRequest, QueueFull, RateLimitExceeded
from llmjobs.models import Client
from llmjobs.sql import load

SQLSTATE = "LJ429"  # the trigger's
RETRY_AFTER_S = 30  # for a client that started nothing lately
RETRY_AFTER_MAX_S = 3_600
RATES = {"rpm": "requests", "tpm": "tokens"}  # the limits a minute, and of what


@dataclass(frozen=True, slots=True)
class Taken:
    """Of a client's own limits a minute, how much is used or waited for; None: there is no such limit."""

    requests: float | None
    tokens: float | None


@dataclass(frozen=True, slots=True)
class Money:
    """A client's month, by the database's clock, UTC. `reserved_usd`: expected of what is accepted and not over."""

    month: date
    spent_usd: Decimal
    reserved_usd: Decimal


@contextmanager
def told(client: Client) -> Iterator[None]:
    """Around what may commit a submit: the trigger's refusal becomes the exception that a caller knows."""
    try:
        yield
    except DatabaseError as error:
        refusal = error.__cause__
        if getattr(refusal, "sqlstate", None) != SQLSTATE:
            raise
        found = json.loads(refusal.diag.message_detail, parse_float=Decimal)  # type: ignore[union-attr]
        raise _refusal(client, found["limit"], found["most"], found["waiting"]) from error


def refuse_if_full(client: Client, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises what `told` does if there is no room for these rows of a submit, as far as this transaction can see."""
    usd = sum(Decimal(row["est_usd"] or 0) for row in rows)
    rejected = any(row["is_rejected_when_limited"] for row in rows)
    now = [row for row in rows if row["delay_s"] <= 0]
    room = _room(client, asks_budget=usd > 0, asks_rates=rejected)
    for limit, taken, asked in (
        ("monthly_budget_usd", room["usd"], usd),
        ("max_queued", room["jobs"], len(rows)),
        ("max_queued_tokens", room["tokens"], _tokens(rows)),
        ("rpm", room["requests"], len(now)),
        ("tpm", room["tokens_a_minute"], min(_tokens(now), room["tpm"] or 0) if len(now) == 1 else _tokens(now)),
        ("backlog_max", room["backlog"], len(rows)),
    ):
        most = conf.backlog_max if limit == "backlog_max" else room[limit]
        if most is not None and taken is not None and taken + asked > most:
            raise _refusal(client, limit, most, taken + asked)


def refuse_over_budget(client: Client, row: Mapping[str, Any]) -> None:
    """Raises InsufficientQuota if the client's month has no room for this row of a submit."""
    usd, most = Decimal(row["est_usd"] or 0), client.monthly_budget_usd
    if usd <= 0 or most is None:
        return
    month = money(client)
    if (with_this := month.spent_usd + month.reserved_usd + usd) > most:
        raise _refusal(client, "monthly_budget_usd", most, with_this)


def refuse_if_it_never_fits(client: Client, row: Mapping[str, Any]) -> None:
    """Raises InvalidRequest if this row of a submit alone is more than the client may have waiting."""
    most, tokens = own(client, "max_queued_tokens"), _tokens([row])
    if most is not None and tokens > most:
        raise InvalidRequest(
            f"expected a job of at most {most:,} estimated tokens, which is what {client.name} may have waiting "
            f"(max_queued_tokens), got one of {tokens:,}: however long it waits, it never fits",
            code="never_fits",
        )


def own(client: Client, name: str) -> int | None:
    """A limit of the client, or where it has none that of its tier."""
    limit: int | None = getattr(client, name)
    return getattr(client.tier, name) if limit is None else limit


def taken(client: Client) -> Taken:
    """One statement; none for a client without limits a minute."""
    params = {name: own(client, name) for name in RATES}
    if not any(params.values()):
        return Taken(None, None)
    return Taken(**_one("taken", {"client_id": client.pk, **params}))


def money(client: Client) -> Money:
    found = _one("money", {"client_id": client.pk})
    return Money(found["month"], found["spent"], found["reserved"])


def _tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["est_input_tokens"] + row["est_output_tokens"] for row in rows)


def _refusal(client: Client, limit: str, most: Any, waiting: Any) -> InvalidRequest:
    """`waiting`: what there would be with this submit, in the limit's unit."""
    if limit == "monthly_budget_usd":
        return InsufficientQuota(
            f"The budget is spent: at most ${most:,.2f} a month for {client.name} ({limit}); with this, and with what "
            f"its waiting and running jobs are expected to cost, it would be ${waiting:,.6f}."
        )
    if limit in RATES:
        return RateLimitExceeded(
            f"At most {most:,} {RATES[limit]} a minute of {client.name} ({limit}); with this, and with what waits, it "
            f"would be {math.ceil(waiting):,}, and `when_limited` says not to wait.",
            type=RATES[limit],
            retry_after_s=_seconds((float(waiting) - most) * 60 / most),
        )
    return _full(client, limit, most, waiting)


def _full(client: Client, limit: str, most: int, waiting: int) -> QueueFull:
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
    room = _room(client)
    return room["jobs"] / room["tokens"] if room["tokens"] else 0.0


def _room(client: Client, *, asks_budget: bool = False, asks_rates: bool = False) -> dict[str, Any]:
    params = {
        "client_id": client.pk, "backlog_max": conf.backlog_max, "asks_budget": asks_budget, "asks_rates": asks_rates,
    }  # fmt: skip
    return _one("room", params)


def _retry_after_s(client_id: int | None, too_many: float) -> int:
    """Until so many jobs have started, at the pace of the latest starts of the client, or of all."""
    starts_per_s = _one("starts", {"client_id": client_id})["starts_per_s"]
    return _seconds(too_many / starts_per_s) if starts_per_s else RETRY_AFTER_S


def _seconds(wait_s: float) -> int:
    return min(max(math.ceil(wait_s), 1), RETRY_AFTER_MAX_S)


def _one(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """The one row of a statement, by its columns."""
    with prepared_cursor() as cursor:
        cursor.execute(load(name), params)
        return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))
