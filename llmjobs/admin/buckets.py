"""What the newest turn of a bucket says: whether its provider takes anything, the limits in force, what was learned.

Reads only, by the database's clock; the claim writes buckets. A model has one, and its account (the provider) another.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs.admin.cells import badge
from llmjobs.admin.last_hour import Sample
from llmjobs.admin.scheduling import newest
from llmjobs.conf import conf
from llmjobs.incidents import REASONS
from llmjobs.models import BlockedBy, BucketKind, BucketTurn, Model, PoolSample, Provider
from llmjobs.samples import KEEP_S, SAMPLE_EVERY_S, TOLD_S

BLOCK = ("blocked_by", "blocked_until")
READ_AT = ExpressionWrapper(Now(), output_field=DateTimeField())
SAMPLES_MAX = 2 * math.ceil(KEEP_S / SAMPLE_EVERY_S)


def with_block(rows: QuerySet[Any], kind: BucketKind, of_id: str = "pk", name: str = "bucket") -> QuerySet[Any]:
    """`rows` with what blocks the bucket of this kind, as JSON in `name`, and the time at which that was read."""
    turns = BucketTurn.objects.filter(kind=kind, of_id=OuterRef(of_id))
    return rows.annotate(**{name: newest(turns, BLOCK), "read_at": READ_AT})


def block_of(row: Provider | Model) -> tuple[str, float] | None:
    """(reason, the Unix time when it is tried again) of a row that came with `with_block`; the account's goes first."""
    read_at: datetime | None = getattr(row, "read_at", None)
    for name in ("account", "bucket"):
        found: dict[str, Any] = getattr(row, name, None) or {}
        reason, until_s = found.get("blocked_by"), found.get("blocked_until", 0.0)
        is_over = reason == BlockedBy.RATE_LIMIT and read_at is not None and until_s <= read_at.timestamp()
        if reason and not is_over:
            return reason, until_s
    return None


def state_badge(row: Provider | Model) -> SafeString:
    if row.is_paused:
        return badge("paused")
    if (block := block_of(row)) is None:
        return badge("in service")
    reason, until_s = block
    return format_html("{} {}, tried again at {}", badge("blocked"), REASONS[reason], time_of_day(until_s))


def time_of_day(at_s: float) -> str:
    return f"{timezone.localtime(datetime.fromtimestamp(at_s, UTC)):%H:%M:%S}"


def pools_to_try(rows: Iterable[Provider | Model]) -> list[int]:
    """The pools whose jobs wait because of these rows' buckets: one that is used is enough for an account."""
    found: set[int] = set()
    for row in rows:
        if isinstance(row, Model):
            found.add(row.pk)
            continue
        pools = row.models.order_by("pk")
        turns = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=OuterRef("pk")).order_by("-turn")
        blocked = pools.annotate(reason=Subquery(turns.values("blocked_by")[:1])).exclude(reason=None)
        found.update(blocked.values_list("pk", flat=True))
        found.update(pools.filter(flows__isnull=False).values_list("pk", flat=True)[:1])
    return sorted(found)


def samples_of(model: Model) -> list[Sample]:
    """As long as they are kept, the oldest first: the one before the hour tells what the first of it brought."""
    rows = PoolSample.objects.filter(pool=model).order_by("-at")[:SAMPLES_MAX]
    names = ("requests", "tokens", "refusals", "queued", "running", "rpm", "tpm", "blocked_by")
    return [Sample(at.timestamp(), *values) for at, *values in rows.values_list("at", *names)][::-1]


def known_of(model: Model) -> list[tuple[str, str]]:
    """(what, value) of the limits in force and of what was learned of a model."""
    turns = BucketTurn.objects.filter(kind=BucketKind.POOL, of_id=model.pk).annotate(read_at=READ_AT)
    bucket: Any = turns.order_by("-turn").first()
    if bucket is None:
        return []
    now_s = bucket.read_at.timestamp()
    is_told = now_s - bucket.told_at <= TOLD_S
    slowed = _slowed(bucket, now_s)
    requests = _limit(model.rpm, conf.default_rpm, bucket.requests_limit if is_told else None)
    tokens = _limit(model.tpm, conf.default_tpm, bucket.tokens_limit if is_told else None)
    known = [("Requests a minute", requests + slowed), ("Tokens a minute", tokens + slowed)]
    if bucket.mean_tokens:
        known.append(("Tokens of a job, mean", f"{bucket.mean_tokens:,.0f}"))
        known.append(("Used less reserved, deviation", f"{math.sqrt(bucket.error_var):,.0f} tokens"))
    if bucket.largest:
        known.append(("Largest reservation lately", f"{bucket.largest:,.0f} tokens"))
    return [
        *known,
        ("Jitter: calls left late by", f"{bucket.jitter_s * 1000:,.0f} ms at most"),
        ("Answered with 429 so far", f"{bucket.refusals:,}"),
        ("Headers that made no sense", f"{bucket.lies:,}"),
    ]


def _limit(own: int | None, default: int, told: float | None) -> str:
    ours = f"{own:,}" if own is not None else f"{default:,}, by default"
    if told is None or told >= (default if own is None else own):
        return ours
    return f"{told:,.0f}, as the provider says; ours is {ours}"


def _slowed(bucket: Any, now_s: float) -> str:
    """What is left of the rate after the provider asked to slow down; it doubles by itself."""
    factor = min(1.0, bucket.rate_factor * 2 ** min(60.0, max(0.0, now_s - bucket.factor_at) / conf.slow_down_ramp_s))
    return "" if factor > 0.99 else f"; at {factor:.0%} since the provider asked to slow down"
