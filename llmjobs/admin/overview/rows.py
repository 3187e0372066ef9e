"""The overview's rows: tiers, models, workers, dead letters by error."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs.admin import bars, cells
from llmjobs.admin.overview.charts import Use, spark
from llmjobs.admin.overview.links import Links
from llmjobs.admin.overview.number import Number
from llmjobs.admin.overview.reading import Overview, Pool
from llmjobs.admin.overview.words import NONE, count, percent, seconds, short
from llmjobs.incidents import REASONS


@dataclass(frozen=True, slots=True)
class TierRow:
    name: str
    url: str
    weight: str
    queued: Number
    queued_bar: SafeString
    oldest: Number
    running: Number
    tokens: str
    share: str
    due: str
    share_bar: SafeString


@dataclass(frozen=True, slots=True)
class PoolCard:
    name: str
    provider: str
    url: str
    state: SafeString
    requests: str
    tokens: str
    numbers: Sequence[Number]
    svg: SafeString


@dataclass(frozen=True, slots=True)
class WorkerRow:
    name: str
    url: str
    state: SafeString
    held: Number
    slots: str
    bar: SafeString
    heartbeat: str
    serves: str


@dataclass(frozen=True, slots=True)
class DeadRow:
    error: str
    jobs: Number
    bar: SafeString
    last: str


def tiers(found: Overview, links: Links) -> list[TierRow]:
    most = max([tier.queued for tier in found.tiers], default=0)

    def number(tier: str, state: str, jobs: int) -> Number:
        return Number(count(jobs), "", links.jobs(status=state, tier=tier), f"{state} of {tier}")

    return [
        TierRow(
            name=tier.name,
            url=links.to("tier", q=tier.name),
            weight=f"{tier.weight:g}",
            queued=number(tier.name, "queued", tier.queued),
            queued_bar=bars.bar(tier.queued, most, kind="waiting"),
            oldest=Number(seconds(tier.oldest_s), live=f"oldest of {tier.name}"),
            running=number(tier.name, "running", tier.running),
            tokens=short(tier.tokens_last_hour),
            share=percent(tier.share),
            due=percent(tier.due_share),
            share_bar=bars.bar(tier.share or 0, 1, marks=(tier.due_share,) if tier.due_share else ()),
        )
        for tier in found.tiers
    ]


def pool_card(pool: Pool, links: Links) -> PoolCard:
    uses = [
        Use(_part(of.requests, of.rpm), _part(of.tokens, of.tpm), of.refusals, of.blocked_by is not None)
        for of in pool.moments
    ]
    last = pool.moments[-1] if pool.moments else None
    requests = f"{count(last.requests if last else 0)} of {short(pool.rpm)}"
    tokens = f"{short(last.tokens if last else 0)} of {short(pool.tpm)}"
    refused = sum(moment.refusals for moment in pool.moments)
    words = f"The last hour: requests {requests} a minute now, tokens {tokens}, {refused:,} answered with 429"
    return PoolCard(
        name=pool.name,
        provider=pool.provider,
        url=links.page("model", pool.id),
        state=_state(pool),
        requests=requests,
        tokens=tokens,
        numbers=[
            Number(count(pool.queued), "waiting", links.jobs(status="queued", served_by=pool.name)),
            Number(count(pool.running), "in flight", links.jobs(status="running", served_by=pool.name)),
            Number(count(refused), "429s:", links.to("attempt", outcome="rejected", model=pool.name)),
        ],
        svg=spark(f"pool-{pool.id}", f"Use of {pool.name}", words, uses),
    )


def _part(used: float, allowed: float) -> float:
    return used / allowed if allowed else 0.0


def _state(pool: Pool) -> SafeString:
    if pool.is_paused:
        return cells.badge("paused")
    if pool.blocked_by is None:
        return cells.badge("in service")
    return format_html("{} {}", cells.badge("blocked"), REASONS.get(pool.blocked_by, pool.blocked_by))


def workers(found: Overview, links: Links) -> list[WorkerRow]:
    return [
        WorkerRow(
            name=worker.name,
            url=links.page("worker", worker.id),
            state=cells.badge(worker.state),
            held=Number(count(worker.held), "", links.jobs(status="running", worker=str(worker.id))),
            slots=count(worker.slots),
            bar=bars.bar(worker.held, worker.slots),
            heartbeat=seconds(worker.heartbeat_age_s),
            serves=worker.serves or "all",
        )
        for worker in found.workers.shown
    ]


def dead_letters(found: Overview, links: Links) -> list[DeadRow]:
    most = max([group.jobs for group in found.dead_letters.shown], default=0)
    return [
        DeadRow(
            error=group.error_code or NONE,
            jobs=Number(count(group.jobs), "", links.dead_letters(error=group.error_code)),
            bar=bars.bar(group.jobs, most, kind="bad"),
            last=cells.duration(found.read_at - group.last_at),
        )
        for group in found.dead_letters.shown
    ]
