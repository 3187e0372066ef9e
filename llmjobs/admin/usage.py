"""What the pages of clients, tiers, models and providers say beside their forms: what waits and runs, what was used.

Reads only, a fixed number of statements a page, whose cost does not depend on the backlog. Numbers lead to the jobs
behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import OuterRef
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from llmjobs import limits, stats, tallies
from llmjobs.admin import days_picture
from llmjobs.admin.bars import bar
from llmjobs.admin.buckets import state_badge, with_block
from llmjobs.admin.cells import duration, link_to
from llmjobs.admin.scheduling import newest
from llmjobs.models import BucketKind, BucketTurn, Client, Model, Provider, Tier
from llmjobs.tallies import Day

MODELS_MAX = 50  # of a provider, shown on its page
BUDGET_MARKS = (0.8, 1.0)  # where operators are told
NOW = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Number:
    """What people read, and the list behind it; "": there is none."""

    what: str
    value: str
    url: str = ""


def jobs_url(**filters: str) -> str:
    return f"{reverse('admin:llmjobs_job_changelist')}?{urlencode(filters)}"


def of_client(client: Client) -> dict[str, Any]:
    found = stats.queue_stats([client.pk])
    numbers = [
        Number(state, f"{found['by_status'][state]:,}", jobs_url(client=client.name, status=state))
        for state in ("running", "queued", "scheduled", "dead")
    ]
    oldest_s = found["oldest_queued_s"]
    if oldest_s is not None:
        numbers.append(Number("longest wait", duration(timedelta(seconds=oldest_s))))
    return {"numbers": numbers, "budget": budget(client), **_days(client.name, tallies.client_days(client.pk))}


def of_model(model: Model) -> dict[str, Any]:
    turn = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=model.pk).order_by("-turn").first()
    numbers = [
        Number(state, f"{getattr(turn, state) if turn else 0:,}", jobs_url(served_by=model.name, status=state))
        for state in NOW
    ]
    return {"numbers": numbers, **_days(model.name, tallies.model_days(model.pk))}


def of_tier(tier: Tier) -> dict[str, Any]:
    """Its share of the last hour's tokens beside what its weight gives it among the tiers that had something to do."""
    found = next((now for now in tallies.tiers_now() if now.name == tier.name), None)
    if found is None:
        return {}
    numbers = [
        Number(state, f"{getattr(found, state):,}", jobs_url(tier=tier.name, status=state))
        for state in ("running", "queued", "scheduled")
    ]
    if found.oldest_s is not None:
        numbers.append(Number("longest wait", duration(timedelta(seconds=found.oldest_s))))
    numbers.append(Number("tokens in the last hour", f"{found.tokens_last_hour:,}"))
    words = f"{found.share:.1%} of the tokens of the last hour; due by weight: {found.due_share:.1%}"
    share = (words, bar(found.share, 1, marks=(found.due_share,) if found.due_share else ()))
    return {"numbers": numbers, "share": share}


def of_provider(provider: Provider) -> dict[str, Any]:
    turns = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=OuterRef("pk"))
    models = with_block(provider.models.order_by("name"), BucketKind.POOL, name="bucket")
    models = with_block(models, BucketKind.ACCOUNT, of_id="provider_id", name="account")
    rows = list(models.annotate(now=newest(turns, NOW))[: MODELS_MAX + 1])
    return {"models": [_model_row(model) for model in rows[:MODELS_MAX]], "more_models": len(rows) > MODELS_MAX}


def _model_row(model: Any) -> dict[str, Any]:
    now = model.now or dict.fromkeys(NOW, 0)
    numbers = [Number(state, f"{now[state]:,}", jobs_url(served_by=model.name, status=state)) for state in NOW]
    return {"link": link_to(model), "state": state_badge(model), "numbers": numbers}


def budget(client: Client) -> tuple[str, SafeString] | None:
    """(words, bar) of the month's budget: what was spent, and what is accepted and will cost; None: no budget."""
    most = client.monthly_budget_usd
    if most is None:
        return None
    now = limits.money(client)
    used = now.spent_usd + now.reserved_usd
    if not most:
        return "a budget of nothing: every job that costs is refused", bar(1, 1, kind="bad")
    part = float(used / most)
    kind = "bad" if part >= BUDGET_MARKS[1] else "waiting" if part >= BUDGET_MARKS[0] else "good"
    left = max(most - used, Decimal(0))
    words = f"{part:.0%} of ${most:,.2f} used or promised, ${left:,.2f} left; operators are told at 80 % and 100 %"
    return words, bar(part, 1, kind=kind, marks=BUDGET_MARKS, scale=1.25)


def _days(name: str, days: Sequence[Day]) -> dict[str, Any]:
    """Pictures and the table, the newest first; nothing where nothing was used."""
    if not any(day.jobs or day.attempts or day.usd for day in days):
        return {"days": [], "day_figures": []}
    return {"days": list(reversed(days)), "day_figures": days_picture.figures(name, days)}
