"""The workers as their heartbeats tell, by the database's clock. A worker writes its own row; an operator drains it.

live: its heartbeats come. late: one is missing, and its jobs are still its own. lost: its lease is over, what it held
is taken back. stopped: it said so itself. Rows of workers that are gone are removed with the jobs of their age.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, DateTimeField, ExpressionWrapper, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmjobs.admin import claims, draining
from llmjobs.admin.bars import bar, with_words
from llmjobs.admin.cells import badge, duration, moment
from llmjobs.admin.filters import ChoiceFilter
from llmjobs.admin.pages import ViewOnlyPage
from llmjobs.admin.usage import jobs_url
from llmjobs.conf import conf
from llmjobs.models import Job, Worker

JOBS_MAX = 100
LATE_AFTER = 2  # heartbeats


def state_of(heartbeat_at: datetime, stopped_at: datetime | None, now: datetime) -> str:
    age_s = (now - heartbeat_at).total_seconds()
    if stopped_at is not None:
        return "stopped"
    if age_s > conf.lease_s:
        return "lost"
    return "late" if age_s > LATE_AFTER * conf.heartbeat_s else "live"


class StateFilter(ChoiceFilter):
    title = "state"
    parameters = ("state",)
    column = "pk"

    def options(self) -> Iterable[tuple[str, str, Any]]:
        return [(word, word, word) for word in ("live", "late", "lost", "stopped")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value:
            return queryset
        late = Now() - timedelta(seconds=LATE_AFTER * conf.heartbeat_s)
        lost = Now() - timedelta(seconds=conf.lease_s)
        meaning = {
            "stopped": Q(stopped_at__isnull=False),
            "lost": Q(stopped_at=None, heartbeat_at__lt=lost),
            "late": Q(stopped_at=None, heartbeat_at__gte=lost, heartbeat_at__lt=late),
            "live": Q(stopped_at=None, heartbeat_at__gte=lost) & Q(heartbeat_at__gte=late),
        }
        return queryset.filter(meaning[self.value]) if self.value in meaning else queryset.none()


@admin.register(Worker)
class WorkerPage(ViewOnlyPage):
    list_display = ("__str__", "state", "heartbeat", "in_use", "leases_lost", "serves", "version", "started")
    list_filter = (StateFilter,)
    search_fields = ("host",)
    search_help_text = "A part of the host's name."
    ordering = ("-heartbeat_at",)
    fields = (
        "id", "host", "pid", "version", "state", "heartbeat", "in_use", "served_pools", "served_tiers",
        "leases_lost", "started", "stopped",
    )  # fmt: skip
    actions = (draining.drain,)
    change_list_template = "admin/llmjobs/worker/change_list.html"
    change_form_template = "admin/llmjobs/worker/change_form.html"

    class Media:
        css = {"all": ["llmjobs/admin_configuration.css"]}

    def has_drain_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("llmjobs.drain_worker")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.switch_claims)
        return [path("claims/", view, name="llmjobs_worker_claims"), *super().get_urls()]

    def switch_claims(self, request: HttpRequest) -> HttpResponse:
        return claims.switch(self, request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {**claims.state(request), **(extra_context or {})})

    def get_queryset(self, request: HttpRequest) -> QuerySet[Worker]:
        held = Job.objects.filter(worker_id=OuterRef("pk"), state="running").order_by().values("worker_id")
        return super().get_queryset(request).annotate(
            read_at=ExpressionWrapper(Now(), DateTimeField()),
            held=Coalesce(Subquery(held.annotate(jobs=Count("pk")).values("jobs")), 0),
        )  # fmt: skip

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return ChangeList  # few rows, with random keys

    def details(self, request: HttpRequest, obj: Worker) -> dict[str, Any]:
        jobs = Job.objects.filter(worker_id=obj.pk, state="running").select_related("client", "pool")
        return {"jobs": jobs.order_by("started_at")[:JOBS_MAX]}

    def buttons(self, obj: Worker) -> list[tuple[str, str]]:
        return draining.buttons(obj)

    def links(self, obj: Worker) -> list[tuple[str, str]]:
        return [(jobs_url(worker=str(obj.pk)), "All its jobs")]

    @admin.display(description="state")
    def state(self, worker: Worker) -> SafeString:
        word = state_of(worker.heartbeat_at, worker.stopped_at, worker.read_at)  # type: ignore[attr-defined]
        return badge("draining" if word == "live" and worker.is_draining else word)

    @admin.display(description="last heartbeat")
    def heartbeat(self, worker: Worker) -> str:
        return f"{duration(worker.read_at - worker.heartbeat_at)} ago"  # type: ignore[attr-defined]

    @admin.display(description="slots in use")
    def in_use(self, worker: Worker) -> SafeString:
        held: int = worker.held  # type: ignore[attr-defined]
        running = jobs_url(worker=str(worker.pk), status="running")
        words = format_html('<a href="{}">{} of {}</a>', running, held, worker.slots)
        return with_words(words, bar(held, worker.slots))

    @admin.display(description="serves")
    def serves(self, worker: Worker) -> str:
        return ", ".join((*worker.pools, *(f"tier {name}" for name in worker.tiers))) or "all"

    @admin.display(description="models")
    def served_pools(self, worker: Worker) -> str:
        return ", ".join(worker.pools) or "all"

    @admin.display(description="tiers")
    def served_tiers(self, worker: Worker) -> str:
        return ", ".join(worker.tiers) or "all"

    @admin.display(description="leases lost", ordering="lease_lost_count")
    def leases_lost(self, worker: Worker) -> str | SafeString:
        """Jobs that were taken back from it: a sign of a machine, or a way to Postgres, that is not well."""
        lost = worker.lease_lost_count
        return badge(f"{lost:,} lost") if lost else "none"

    @admin.display(description="started")
    def started(self, worker: Worker) -> str | SafeString:
        return moment(worker.started_at)

    @admin.display(description="stopped")
    def stopped(self, worker: Worker) -> str | SafeString:
        return moment(worker.stopped_at)
