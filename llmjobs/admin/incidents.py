"""Incidents: breakers that opened, of a provider or one of its models. Read only; the fold opens and closes them.

Those that are open stand on every page of the admin, for who may do anything with this app there: a host's own
`admin/base_site.html` has `{% load llmjobs_incidents %}{% open_incidents %}`.
"""

from datetime import timedelta

from django.contrib import admin
from django.db.models import DateTimeField, ExpressionWrapper, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString

from llmjobs.admin.cells import badge, duration, moment
from llmjobs.admin.pages import ViewOnlyPage
from llmjobs.incidents import REASONS
from llmjobs.models import Incident

COLUMNS = ("reason_in_words", "provider", "affected", "since", "until", "lasted", "told")


@admin.register(Incident)
class IncidentPage(ViewOnlyPage):
    list_display = ("id", *COLUMNS)
    fields = (*COLUMNS, "words")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Incident]:
        incidents = super().get_queryset(request).select_related("provider", "pool")
        return incidents.annotate(read_at=ExpressionWrapper(Now(), output_field=DateTimeField()))

    @admin.display(description="reason")
    def reason_in_words(self, incident: Incident) -> str:
        return REASONS.get(incident.reason, incident.reason)

    @admin.display(description="model")
    def affected(self, incident: Incident) -> str:
        return str(incident.pool) if incident.pool else "all"

    @admin.display(description="since")
    def since(self, incident: Incident) -> str | SafeString:
        return moment(incident.opened_at)

    @admin.display(description="until")
    def until(self, incident: Incident) -> str | SafeString:
        return badge("blocked") if incident.closed_at is None else moment(incident.closed_at)

    @admin.display(description="lasted")
    def lasted(self, incident: Incident) -> str:
        length: timedelta = (incident.closed_at or incident.read_at) - incident.opened_at  # type: ignore[attr-defined]
        return duration(length)

    @admin.display(description="operators told")
    def told(self, incident: Incident) -> str:
        """Of its opening, and of its end once it has one."""
        told = (
            [incident.opening_told_at, incident.closing_told_at] if incident.closed_at else [incident.opening_told_at]
        )
        if all(told):
            return "yes"
        failures = incident.tell_failures
        return f"failed {failures} times, tried again" if failures else "not yet"
