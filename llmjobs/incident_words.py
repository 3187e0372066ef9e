"""What is said of an incident, wherever it is said: the banner, the list, the mail, the webhook, the terminal.

Owns the words, the links and the webhook's body. Does not own who is told (incidents.py), nor what a kind means
(handbook.py). Invariant: what is said of an end never depends on what is open now.

All take an Incident (with its provider, pool, tier and client loaded), or the same facts as tell.sql gives them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from llmjobs.conf import conf
from llmjobs.handbook import HANDBOOK
from llmjobs.models import Incident
from llmjobs.models.incidents import Kind

WORDS_CHARS_MAX = 300  # of the provider's own words
NAMED_MAX = 3  # of many, in a line
LISTED_MAX = 50  # of many, in a mail or a webhook

# Why jobs wait, as people read it: in e-mails, on the admin's pages.
REASONS = {
    "provider_quota": "quota used up",
    "provider_auth": "key refused",
    "provider_down": "down",
    "rate_limit": "rate limit reached",
}
# The page behind a kind: its name in the admin, and the query that narrows it.
LISTS = {
    "backlog": ("llmjobs_job_changelist", {"status": "queued", "tier": "{tier}"}),
    "no_worker": ("llmjobs_worker_changelist", {}),
    "claims_paused": ("llmjobs_worker_changelist", {}),
    "dead_letters": ("llmjobs_deadletter_changelist", {}),
    "webhooks": ("llmjobs_webhookdelivery_changelist", {"state": "failed"}),
}

Facts = Mapping[str, Any]


def facts(incident: Incident | Facts) -> Facts:
    """As tell.sql has them."""
    if not isinstance(incident, Incident):
        return incident
    names = ("id", "kind", "level", "reason", "words", "opened_at", "closed_at", "provider_id", "pool_id", "client_id")
    found = {name: getattr(incident, name) for name in names}
    found |= {name: _name(getattr(incident, name)) for name in ("provider", "tier", "client")}
    return {**found, "model": _name(incident.pool), "is_opening": incident.closed_at is None}


def headline(incident: Incident | Facts) -> str:
    """What it is about, in a few words; the same when it is over."""
    of = facts(incident)
    match of["kind"]:
        case "breaker":
            return f"{of['model']} at {of['provider']}" if of["model"] else str(of["provider"])
        case "backlog":
            return f"Backlog of tier {of['tier']}"
        case "no_worker":
            tier = f" for tier {of['tier']}" if of["tier"] else ""
            return f"No worker{tier}" + (f"{' of' if tier else ' for'} model {of['model']}" if of["model"] else "")
        case "blocked":
            return f"{of['model']} at {of['provider']} blocked by its rate limit"
        case "budget":
            return f"Budget of {of['client']} {'used up' if of['level'] == 'critical' else 'at 80 %'}"
        case kind:
            return HEADLINES.get(kind, str(kind))


HEADLINES = {
    "claims_paused": "All claims paused",
    "dead_letters": "Dead letters rising",
    "webhooks": "Webhooks failing",
    "snapshot": "Old snapshot held in the database",
}


def state(incident: Incident | Facts) -> str:
    """Behind the headline, in a subject."""
    of = facts(incident)
    if of["kind"] == "breaker":
        return _reason(of) if of["is_opening"] else "answers again"
    return str(of["level"]) if of["is_opening"] else "over"


def _reason(of: Facts) -> str:
    return REASONS.get(of["reason"], str(of["reason"]))


def text(incident: Incident | Facts) -> str:
    """One line for people."""
    of = facts(incident)
    what = headline(of)
    if not of["is_opening"]:
        minutes = f"{max(1, round((of['closed_at'] - of['opened_at']).total_seconds() / 60)):,} min"
        if of["kind"] == "breaker":
            return f"{what} answers again; its jobs go on. It was stopped for {minutes}: {_reason(of)}."
        return f"{what}: over, after {minutes}."
    since = f"{timezone.localtime(of['opened_at']):%Y-%m-%d %H:%M %Z}"  # it may be told much later
    words = " ".join(of["words"].split())[:WORDS_CHARS_MAX]
    if of["kind"] == "breaker":
        line = f"{what}: {_reason(of)} since {since}. Its jobs wait; one of them tries it now and then."
        return f"{line} It said: {words}" if words else line
    return f"{what} since {since}. {words}".rstrip()


def path(incident: Incident | Facts) -> str:
    """Of the page behind it, where something can be done; "" where the admin is not served."""
    of = facts(incident)
    if of["kind"] in LISTS:
        name, query = LISTS[of["kind"]]
        asked = urlencode({key: value.format(**of) for key, value in query.items()})
        return f"{_reversed(name)}?{asked}" if asked else _reversed(name)
    for name, key in (("model", "pool_id"), ("provider", "provider_id"), ("client", "client_id")):
        if of[key] is not None:
            return _reversed(f"llmjobs_{name}_change", of[key])
    return own_path(of)


def own_path(incident: Incident | Facts) -> str:
    """Of its own page: what it means, what to do, who was told."""
    return _reversed("llmjobs_incident_change", facts(incident)["id"])


def link(incident: Incident | Facts) -> str:
    """The page behind it, with the site's name where LLMJOBS_SITE_URL has it."""
    return absolute(path(incident))


def absolute(found: str) -> str:
    return conf.site_url.rstrip("/") + found if found else ""


# Of one, or of many of one kind that began or ended at one time: a storm is one message.


def subject(told: Sequence[Facts]) -> str:
    return f"{headline(told[0])}: {state(told[0])}" if len(told) == 1 else _many(told)


def line(told: Sequence[Facts]) -> str:
    if len(told) == 1:
        return text(told[0])
    shown = "; ".join(headline(of) for of in told[:NAMED_MAX])
    return f"{_many(told)}: {shown}; and {len(told) - NAMED_MAX:,} more."


def _many(told: Sequence[Facts]) -> str:
    return (
        f"{len(told):,} incidents ({Kind(told[0]['kind']).label}) {'opened' if told[0]['is_opening'] else 'are over'}"
    )


def body(told: Sequence[Facts]) -> str:
    """Of a mail: what is wrong, where, what it means, what to do."""
    lines = [text(of) for of in told[:LISTED_MAX]]
    if len(told) > LISTED_MAX:
        lines.append(f"And {len(told) - LISTED_MAX:,} more.")
    lines += ["", *_links(told)]
    if told[0]["is_opening"]:
        entry = HANDBOOK[told[0]["kind"]]
        lines += ["", entry.means, "", *(f"- {step}" for step in entry.steps)]
    return "\n".join(lines).strip() + "\n"


def _links(told: Sequence[Facts]) -> list[str]:
    if len(told) > 1:
        return [found for found in [absolute(_reversed("llmjobs_incident_changelist"))] if found]
    return list(dict.fromkeys(found for found in (link(told[0]), absolute(own_path(told[0]))) if found))


def payload(told: Sequence[Facts]) -> dict[str, Any]:
    """The webhook's body. `text` makes it a message as Slack and its kin take it."""
    of = told[0]
    if of["kind"] == "breaker":
        kind = "provider.blocked" if of["is_opening"] else "provider.unblocked"
    else:
        kind = "incident.opened" if of["is_opening"] else "incident.closed"
    if len(told) == 1:
        return {"type": kind, "text": text(of), "data": _data(of)}
    data = {
        "kind": of["kind"], "level": min(of["level"] for of in told), "count": len(told),  # by the alphabet: the worst
        "link": next(iter(_links(told)), ""), "incidents": [_data(of) for of in told[:LISTED_MAX]],
    }  # fmt: skip
    return {"type": kind, "text": line(told), "data": data}


def message_id(told: Sequence[Facts]) -> str:
    """The same for the same incidents, whoever tells of them."""
    event = "opened" if told[0]["is_opening"] else "closed"
    if len(told) == 1:
        return f"msg_incident_{told[0]['id']}_{event}"
    ids = " ".join(str(number) for number in sorted(of["id"] for of in told))
    return f"msg_incidents_{hashlib.sha256(ids.encode()).hexdigest()[:24]}_{event}"


def _data(of: Facts) -> dict[str, Any]:
    data = {name: of[name] for name in ("kind", "level", "provider", "model", "tier", "client", "reason")}
    data["words"] = of["words"][:WORDS_CHARS_MAX]
    data |= {name: _rfc3339(of[name]) for name in ("opened_at", "closed_at")}
    if of["is_opening"]:
        data["closed_at"] = None
    return data | {"link": link(of)}


def _name(row: Any) -> str | None:
    return None if row is None else str(row)


def _reversed(name: str, *args: Any) -> str:
    try:
        return reverse(f"admin:{name}", args=args)
    except NoReverseMatch:
        return ""


def _rfc3339(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
