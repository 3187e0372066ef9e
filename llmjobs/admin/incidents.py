"""Incidents: what operators must know, its list and the page of one. Read only; the fold and the watch open and close.

Those that are open stand on every page of the admin, for who may do anything with this app there: a host's own
`admin/base_site.html` has `{% load llmjobs_incidents %}{% open_incidents %}`. Who opens the list looks first whether
something is wrong, so that it is right even where no worker lives.
"""

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db import DatabaseError
from django.db.models import DateTimeField, ExpressionWrapper, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs import incident_words, watch
from llmjobs.admin.cells import HIDDEN, NOTHING, badge, duration, link_to
from llmjobs.admin.filters import ChoiceFilter
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.handbook import HANDBOOK
from llmjobs.incidents import REASONS, headline
from llmjobs.models import Incident
from llmjobs.models.incidents import Kind, Level

logger = logging.getLogger("llmjobs.watch")

BEHIND = {  # what the page behind an incident is called
    "backlog": "Its waiting jobs",
    "no_worker": "Workers",
    "blocked": "The model",
    "claims_paused": "Workers",
    "dead_letters": "Dead letters",
    "budget": "The client",
    "webhooks": "Deliveries given up",
}
FIELDS = ("degree", "what", "seen", "concerns", "since", "until", "lasted", "told")


class OpenFilter(ChoiceFilter):
    title = "open"
    parameters = ("is_open",)
    column = "closed_at__isnull"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [("yes", "Open", True), ("no", "Over", False)]


class LevelFilter(ChoiceFilter):
    title = "level"
    parameters = ("level",)
    column = "level"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(level.value, str(level.label).capitalize(), level.value) for level in (Level.CRITICAL, Level.WARNING)]


class KindFilter(ChoiceFilter):
    title = "kind"
    parameters = ("kind",)
    column = "kind"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(kind.value, str(kind.label).capitalize(), kind.value) for kind in Kind]


@admin.display(description="seen")
def hidden(incident: Incident) -> str:
    return HIDDEN


@admin.register(Incident)
class IncidentPage(ViewOnlyPage):
    list_display = ("degree", "what", "since", "until", "lasted", "told")
    list_display_links = ("what",)
    list_filter = (OpenFilter, LevelFilter, KindFilter)
    fields = FIELDS
    change_form_template = "admin/llmjobs/incident/change_form.html"

    class Media:
        css = {"all": ["llmjobs/admin_incidents.css"]}  # a host's own base_site.html may not have it

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        try:
            watch.look_here()
        except DatabaseError as error:  # the list is shown as it is
            logger.warning("event=watch_failed reason=%r", str(error).strip().partition("\n")[0])
        return super().changelist_view(request, extra_context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        incidents = super().get_queryset(request).select_related("provider", "pool", "tier", "client")
        return incidents.annotate(read_at=ExpressionWrapper(Now(), output_field=DateTimeField()))

    def get_fields(self, request: HttpRequest, obj: Incident | None = None) -> Any:
        """A breaker's words are its provider's, which may quote what it was asked."""
        is_hidden = obj is not None and obj.kind == Kind.BREAKER and not may_see_content(request)
        return [hidden if name == "seen" and is_hidden else name for name in FIELDS]

    def links(self, obj: Incident) -> list[tuple[str, str]]:
        path = incident_words.path(obj)
        if not path or path == incident_words.own_path(obj):
            return []
        return [(path, BEHIND.get(obj.kind, "The model" if obj.pool else "The provider"))]

    def details(self, request: HttpRequest, obj: Incident) -> dict[str, Any]:
        return {"entry": HANDBOOK.get(obj.kind)}

    @admin.display(description="level")
    def degree(self, incident: Incident) -> SafeString:
        return badge(incident.level)

    @admin.display(description="what")
    def what(self, incident: Incident) -> str:
        if incident.kind == Kind.BREAKER:
            return f"{headline(incident)}: {REASONS.get(incident.reason, incident.reason)}"
        return headline(incident)

    @admin.display(description="seen")
    def seen(self, incident: Incident) -> str:
        return incident.words or NOTHING

    @admin.display(description="concerns")
    def concerns(self, incident: Incident) -> str | SafeString:
        """The narrowest that it is about."""
        row = incident.client or incident.pool or incident.provider or incident.tier
        return NOTHING if row is None else link_to(row)

    @admin.display(description="since")
    def since(self, incident: Incident) -> SafeString:
        return _minute(incident.opened_at)

    @admin.display(description="until")
    def until(self, incident: Incident) -> SafeString:
        if incident.closed_at is None:
            return badge("blocked" if incident.kind == Kind.BREAKER else "ongoing")
        return _minute(incident.closed_at)

    @admin.display(description="lasted")
    def lasted(self, incident: Incident) -> str:
        length: timedelta = (incident.closed_at or incident.read_at) - incident.opened_at  # type: ignore[attr-defined]
        return duration(length)

    @admin.display(description="told")
    def told(self, incident: Incident) -> str:
        """Operators, of its opening, and of its end once it has one."""
        told = (
            [incident.opening_told_at, incident.closing_told_at] if incident.closed_at else [incident.opening_told_at]
        )
        if all(told):
            return "yes"
        failures = incident.tell_failures
        return f"failed {failures} times, tried again" if failures else "not yet"


def _minute(at: datetime) -> SafeString:
    words = formats.date_format(timezone.localtime(at), "Y-m-d H:i")
    return format_html('<time datetime="{}">{}</time>', at.isoformat(), words)
