"""`{% open_incidents %}`: what operators must know, as a line each, the worst first, for every page of the admin."""

from typing import Any

from django import template
from django.utils import timezone

from llmjobs import incident_words
from llmjobs.incidents import REASONS, headline, open_incidents
from llmjobs.models import Incident, Worker
from llmjobs.pauses import open_pause

register = template.Library()
SHOWN_MAX = 5
# Who may see the page behind it.
MAY_SEE = {
    "backlog": "view_job",
    "no_worker": "view_worker",
    "blocked": "view_model",
    "dead_letters": "view_deadletter",
    "budget": "view_client",
    "webhooks": "view_webhookdelivery",
    "snapshot": "view_incident",
}


@register.inclusion_tag("admin/llmjobs/open_incidents.html", takes_context=True, name="open_incidents")
def show_open_incidents(context: dict[str, Any]) -> dict[str, Any]:
    """Two queries, of indexes that hold the open ones alone; none for who may not see this app in the admin.

    On their own list they stand anyway. A pause of all claims is read itself: the watch sees it some seconds later, and
    sees its end later still.
    """
    user = getattr(context.get("request"), "user", None)
    if user is None or not user.is_staff or not user.has_module_perms("llmjobs"):
        return {}
    if getattr(context.get("cl"), "model", None) is Incident:
        return {}
    found = [incident for incident in open_incidents(SHOWN_MAX + 2) if incident.kind != "claims_paused"]
    return {
        "pause": None if getattr(context.get("cl"), "model", None) is Worker else open_pause(),
        "may_view_workers": user.has_perm("llmjobs.view_worker"),
        "today": timezone.localdate(),
        "incidents": [_shown(incident, user) for incident in found[:SHOWN_MAX]],
        "are_more": len(found) > SHOWN_MAX,
        "may_view": user.has_perm("llmjobs.view_incident"),
    }


def _shown(incident: Incident, user: Any) -> dict[str, Any]:
    may_see = user.has_perm(f"llmjobs.{MAY_SEE.get(incident.kind, 'view_model' if incident.pool else 'view_provider')}")
    return {
        "row": incident,
        "headline": headline(incident),
        "path": incident_words.path(incident) if may_see else "",
        "reason": REASONS.get(incident.reason, incident.reason),
    }
