"""`{% open_incidents %}`: the providers whose jobs wait, as a line each, for every page of the admin."""

from typing import Any

from django import template
from django.utils import timezone

from llmjobs.incidents import REASONS
from llmjobs.models import Incident

register = template.Library()
SHOWN_MAX = 5


@register.inclusion_tag("admin/llmjobs/open_incidents.html", takes_context=True)
def open_incidents(context: dict[str, Any]) -> dict[str, Any]:
    """One query, of an index that holds the open ones alone; none for who may not see this app in the admin."""
    user = getattr(context.get("request"), "user", None)
    if user is None or not user.is_staff or not user.has_module_perms("llmjobs"):
        return {}
    found = Incident.objects.filter(closed_at=None).select_related("provider", "pool").order_by("-opened_at")
    incidents = list(found[: SHOWN_MAX + 1])
    return {
        "today": timezone.localdate(),
        "incidents": [(incident, REASONS.get(incident.reason, incident.reason)) for incident in incidents[:SHOWN_MAX]],
        "are_more": len(incidents) > SHOWN_MAX,
        "may_view": user.has_perm("llmjobs.view_incident"),
    }
