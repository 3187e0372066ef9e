"""What a client used in a month, by the day, beside its budget and its limits; and what of these is left now.

Reads only: tallies, counts, spending and buckets, by four statements at most, whatever the client's backlog or history.
Owns the shape of `GET /api/usage`. Days are UTC and some seconds old; money, counts and what is left are exact.
"""

import math
from datetime import date
from typing import Any

from django.db import connection

from llmjobs import limits
from llmjobs.models import Client
from llmjobs.pinning import pinned
from llmjobs.sql import load

LIMITS = ("rpm", "tpm", "max_running", "max_queued", "max_queued_tokens")


def of_month(client: Client, month: date | None = None) -> dict[str, Any]:
    """`month`: its first day; None: this month, by the database's clock."""
    with pinned():
        [(first, spent, expected, queued, queued_tokens, running)] = _rows("usage_now", client=client.pk, month=month)
        days = _rows("month_days", client=client.pk, month=first)
    taken = limits.taken(client)
    budget_usd = client.monthly_budget_usd
    return {
        "object": "usage",
        "client": client.name,
        "month": f"{first:%Y-%m}",
        "budget_usd": None if budget_usd is None else float(budget_usd),
        "spent_usd": float(spent),
        "expected_usd": float(max(expected, 0)),
        "limits": {name: limits.own(client, name) for name in LIMITS},
        "now": {
            "queued": max(queued, 0),
            "queued_tokens": max(queued_tokens, 0),
            "running": max(running, 0),
            "requests_left": _left(limits.own(client, "rpm"), taken.requests),
            "tokens_left": _left(limits.own(client, "tpm"), taken.tokens),
        },
        "days": [_day(*row) for row in days],
    }


def _day(day: date, jobs: int, attempts: int, input_tokens: int, output_tokens: int, usd: Any) -> dict[str, Any]:
    return {
        "day": day.isoformat(),
        "jobs": jobs,
        "attempts": attempts,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cost_usd": float(usd),
    }


def _left(limit: int | None, used: float | None) -> int | None:
    return None if limit is None or used is None else max(math.floor(limit - used), 0)


def _rows(name: str, **params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(load(name), params)
        return list(cursor.fetchall())
