"""The list of jobs and the page of one: found and filtered without counting, requeued and cancelled through the verbs.

Nobody edits a job here: its state is written by `queue.py` alone. The list reads the thin row, its names and the
small columns of its result, in a fixed number of queries; bodies and outputs stay where they are.
"""

from typing import Any

from django.contrib import admin
from django.db.models import DateTimeField, ExpressionWrapper, Prefetch, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse

from llmjobs.admin import job_actions, job_page, job_search
from llmjobs.admin import job_columns as c
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.models import Job, JobResult
from llmjobs.states import REQUEUEABLE, TERMINAL

FIELDSETS = (
    ("Where it stands", {"fields": (
        c.status, c.why_it_waits, (c.created, c.waited), (c.available, c.expires), (c.started, c.ran),
        (c.finished, c.retried_until), c.attempts, c.held_by, c.failure,
    )}),
    ("Who and what", {"fields": (
        c.public_id, ("client", "tier"), c.model, ("endpoint", c.priority), c.end_user, c.metadata, c.idempotency_key,
        c.prompt_hash,
    )}),
    ("Tokens and cost", {"fields": ((c.estimate, c.tokens), (c.cost, c.cost_limit), c.limits)}),
)  # fmt: skip


@admin.register(Job)
class JobPage(ViewOnlyPage):
    list_display = (
        c.short_id, c.status, "client", "tier", c.asked_model, c.priority, c.attempts,
        c.created, c.waited, c.ran, c.tokens, c.cost, c.error,
    )  # fmt: skip
    list_filter = job_search.JOB_FILTERS
    search_fields = ("public_id",)  # Django shows the field only where there are some; `get_search_results` decides
    search_help_text = job_search.HELP
    actions = ("requeue", "cancel")
    change_form_template = "admin/llmjobs/job/change_form.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        result = Prefetch("result", queryset=JobResult.objects.only(*c.RESULT_COLUMNS))
        jobs = with_clock(super().get_queryset(request)).select_related("client", "tier", "pool", "home")
        return jobs.prefetch_related(result)

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        return FIELDSETS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        return job_search.search(queryset, search_term), False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Job | None:
        return job_page.find(with_clock(Job.objects.all()), object_id)

    def details(self, request: HttpRequest, obj: Job) -> dict[str, Any]:
        obj.details = job_page.load(obj, with_content=may_see_content(request))  # type: ignore[attr-defined]
        return {}

    def has_requeue_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("llmjobs.requeue_job")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("llmjobs.cancel_job")

    @admin.action(description="Requeue selected jobs", permissions=["requeue"])
    def requeue(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse:
        return job_actions.run(self, request, queryset, job_actions.REQUEUE)

    @admin.action(description="Cancel selected jobs", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> HttpResponse:
        return job_actions.run(self, request, queryset, job_actions.CANCEL)

    def buttons(self, obj: Job) -> list[tuple[str, str]]:
        if obj.state in REQUEUEABLE:
            return [("requeue", "Requeue")]
        if obj.state in TERMINAL or obj.cancel_requested_at:
            return []
        return [("cancel", "Cancel")]


def with_clock(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """Each job with `read_at`, the database's clock: what waits or runs is measured by the clock that started it."""
    return jobs.annotate(read_at=ExpressionWrapper(Now(), DateTimeField()))
