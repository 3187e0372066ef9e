"""The overview as people see it: which number is shown where, what it is called, and the list that it leads to.

Owns words, order and links. Does not own what is asked (reading.py) nor how a line is drawn. Whoever may see jobs sees
all numbers; a link is there only for who may open what is behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils import timezone

from llmjobs.admin import cells
from llmjobs.admin.overview import rows
from llmjobs.admin.overview.links import Links
from llmjobs.admin.overview.number import Number
from llmjobs.admin.overview.pictures import pictures
from llmjobs.admin.overview.reading import Overview, Period, look, read
from llmjobs.admin.overview.words import count, dollars, percent, seconds, short
from llmjobs.admin.pages import may_see_content
from llmjobs.incident_words import REASONS, WORDS_CHARS_MAX, headline
from llmjobs.models import Incident

SOCKET = "/ws/queue/"
# The list in which a kind of incident can be mended, where it is not about a model, a provider or a client.
BEHIND = {
    "backlog": "job", "no_worker": "worker", "claims_paused": "worker", "dead_letters": "deadletter",
    "webhooks": "webhookdelivery",
}  # fmt: skip
MINUTES = {"hour": 1.0, "day": 10.0}  # of a moment


def may_see(request: HttpRequest) -> bool:
    user: Any = getattr(request, "user", None)
    return bool(user and user.is_active and user.is_staff and user.has_perm("llmjobs.view_job"))


def context(request: HttpRequest) -> dict[str, Any]:
    """What the overview's template shows, to who `may_see` it."""
    # A server without WebSockets would refuse one, and browsers note that as an error.
    socket = SOCKET if isinstance(request, ASGIRequest) else ""
    if not socket:
        look()
    period: Period = "day" if request.GET.get("period") == "day" else "hour"
    found, links = read(period), Links(request)
    charts, table = pictures(found.moments, MINUTES[period], [tier.name for tier in found.tiers], links)
    return {
        "period": period,
        "periods": [("hour", "Last hour"), ("day", "Last day")],
        "read_at": timezone.localtime(found.read_at),
        "socket": socket,
        "alerts": [_alert(incident, found, links, sees_words=may_see_content(request)) for incident in found.incidents],
        "incidents": found.incident_count,
        "incidents_url": links.to("incident"),
        "tiles": _tiles(found, links),
        "tiers": rows.tiers(found, links),
        "totals": _totals(found, links),
        "charts": charts,
        "table": table,
        "pools": [rows.pool_card(pool, links) for pool in found.pools.shown],
        "all_pools": found.pools,
        "pools_url": links.to("model"),
        "workers": rows.workers(found, links),
        "all_workers": found.workers,
        "workers_url": links.to("worker"),
        "dead_letters": rows.dead_letters(found, links),
        "all_dead_letters": found.dead_letters,
        "dead_letters_url": links.dead_letters(),
    }


@dataclass(frozen=True, slots=True)
class Tile:
    title: str
    number: Number
    notes: Sequence[Number]


@dataclass(frozen=True, slots=True)
class Alert:
    level: str
    headline: str
    words: str
    behind: str
    since: str
    lasted: str
    waiting: Number | None
    url: str


def _alert(incident: Incident, found: Overview, links: Links, *, sees_words: bool) -> Alert:
    opened = timezone.localtime(incident.opened_at)
    return Alert(
        level=incident.level,
        headline=headline(incident),
        words=_words(incident, sees_words=sees_words),
        behind=_behind(incident, links),
        since=f"{opened:%H:%M}" if opened.date() == timezone.localdate() else f"{opened:%Y-%m-%d %H:%M}",
        lasted=cells.duration(found.read_at - incident.opened_at),
        waiting=_waiting(incident, found, links),
        url=links.page("incident", incident.pk),
    )


def _words(incident: Incident, *, sees_words: bool) -> str:
    """Those beside a reason are the provider's, which may quote what it was asked: not for everybody."""
    words = " ".join(incident.words.split())[:WORDS_CHARS_MAX]
    if not incident.reason:
        return words
    words = words if sees_words else ""
    reason = REASONS.get(incident.reason, incident.reason)
    return f"{reason}. It said: {words}" if words else f"{reason}."


def _behind(incident: Incident, links: Links) -> str:
    """Where it can be mended."""
    for table, key in (("model", incident.pool_id), ("provider", incident.provider_id), ("client", incident.client_id)):
        if key is not None:
            return links.page(table, key)
    return links.to(BEHIND[incident.kind]) if incident.kind in BEHIND else ""


def _waiting(incident: Incident, found: Overview, links: Links) -> Number | None:
    """How many jobs wait because of it, where what was read tells."""
    jobs, filters = None, {"status": "queued"}
    if incident.pool is not None:
        jobs = next((pool.queued for pool in found.pools.shown if pool.id == incident.pool_id), None)
        filters["served_by"] = incident.pool.name
    elif incident.provider_id is not None:
        at_it = (pool.provider_queued for pool in found.pools.shown if pool.provider_id == incident.provider_id)
        jobs = next(at_it, None)
    elif incident.tier is not None:
        jobs = next((tier.queued for tier in found.tiers if tier.name == incident.tier.name), None)
        filters["tier"] = incident.tier.name
    elif incident.kind in ("no_worker", "claims_paused"):
        jobs = found.stats["queued"]
    return None if jobs is None else Number(count(jobs), "jobs wait", links.jobs(**filters))


def _tiles(found: Overview, links: Links) -> list[Tile]:
    stats, minute, attempts = found.stats, found.minute, links.to("attempt")
    wait, failed = stats["wait_s"], minute.failed + minute.dead
    live = found.workers.by_state.get("live", 0)
    ended = failed + minute.completed
    of_all = [Number(percent(failed / ended), "of all")] if ended else []
    return [
        Tile("Waiting", Number(count(stats["queued"]), "", links.jobs(status="queued"), "queued"), [
            Number(seconds(stats["oldest_queued_s"]), "oldest:", links.jobs(status="queued"), "oldest"),
            Number(count(stats["by_status"]["scheduled"]), "scheduled", links.jobs(status="scheduled"), "scheduled"),
        ]),
        Tile("Running", Number(count(stats["running"]), "", links.jobs(status="running"), "running"), [
            Number(count(found.workers.slots), "slots", links.to("worker")),
            Number(count(live), "worker" if live == 1 else "workers", links.to("worker", state="live")),
        ]),
        Tile("Started a minute", Number(count(minute.started), "", attempts), [
            Number(count(minute.submitted), "submitted", links.jobs()),
            Number(count(minute.completed), "completed", links.jobs(status="completed")),
        ]),
        Tile("Failed a minute", Number(count(failed), "", links.dead_letters(), look="bad" if failed else ""), [
            *of_all, Number(count(found.dead_letters.total), "dead letters", links.dead_letters()),
        ]),
        Tile("Wait, p95", Number(seconds(wait["p95"]), "", attempts, "wait_p95"), [
            Number(seconds(wait["p50"]), "p50:", attempts, "wait_p50"),
        ]),
        Tile("Run time, p95", Number(seconds(minute.run_p95_s), "", attempts), [
            Number(seconds(minute.run_p50_s), "p50:", attempts),
        ]),
        Tile("Tokens a minute", Number(short(minute.input_tokens + minute.output_tokens), "", attempts), [
            Number(short(minute.input_tokens), "in:", attempts), Number(short(minute.output_tokens), "out:", attempts),
        ]),
        Tile("Dollars a minute", Number(dollars(minute.usd), "", attempts), [
            Number(dollars(found.today_usd), "today:", links.to("client")),
        ]),
    ]  # fmt: skip


def _totals(found: Overview, links: Links) -> list[Number]:
    of, attempts = found.totals, links.to("attempt")
    looks = {"completed": "good", "failed": "bad", "dead": "bad"}
    ends = ("completed", "failed", "dead", "cancelled", "expired")
    return [
        Number(count(of["submitted"]), "submitted", links.jobs()),
        Number(count(of["started"]), "started", attempts),
        *(
            Number(count(of[end]), end, links.jobs(status=end), look=looks.get(end, "") if of[end] else "")
            for end in ends
        ),
        Number(count(of["retries"]), "retries", attempts),
        Number(count(of["refusals"]), "429s:", links.to("attempt", outcome="rejected")),
        Number(count(of["lease_lost"]), "leases lost", links.to("attempt", outcome="lost")),
        Number(short(of["input_tokens"] + of["output_tokens"]), "tokens", attempts),
        Number(dollars(of["usd"]), "spent", links.to("client")),
    ]
