"""The list of jobs and the page of one: found and filtered without counting, followed live, acted on by the verbs.

    job_search.py, job_filters.py               what may be typed, and the filters beside the list
    job_columns.py                              what list and page say of a job, a function each
    job_page.py, job_content.py                 what a page reads: around the job; what was asked and answered
    job_standing.py, job_story.py, job_bars.py  how it stands, what happened in order, where the time went
    job_editing.py, job_actions.py              edit and requeue one; what can be done to many
    job_links.py                                the links that show one to others

Nobody edits a job's row here: its state is written by `queue.py` alone. The list reads the thin row, its names and the
small columns of its result, in a fixed number of queries; bodies and outputs stay where they are.
"""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db.models import DateTimeField, ExpressionWrapper, Prefetch, QuerySet
from django.db.models.functions import Now
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse

from llmjobs.admin import job_actions, job_editing, job_links, job_page, job_search
from llmjobs.admin import job_columns as c
from llmjobs.admin.job_filters import JOB_FILTERS
from llmjobs.admin.pages import ViewOnlyPage, may_see_content
from llmjobs.models import DeadLetter, Job, JobRequest, JobResult
from llmjobs.operation_verbs import VERBS
from llmjobs.states import REQUEUEABLE

FIELDSETS = (
    ("Who and what", {"fields": (
        c.public_id, ("client", "tier"), c.model, ("endpoint", c.priority), c.end_user, c.metadata, c.idempotency_key,
        c.prompt_hash, c.limits,
    )}),
)  # fmt: skip


@admin.register(Job)
class JobPage(ViewOnlyPage):
    list_display = (
        c.short_id, c.status, "client", c.asked_model, c.error, c.created, c.waited, c.ran,
        "tier", c.priority, c.attempts, c.tokens, c.cost,
    )  # fmt: skip
    list_per_page = 50  # its rows are the dearest
    list_filter = JOB_FILTERS
    search_fields = ("public_id",)  # Django shows the field only where there are some; `get_search_results` decides
    search_help_text = job_search.HELP
    actions = job_actions.ACTIONS
    change_form_template = "admin/llmjobs/job/change_form.html"

    class Media:
        js = [Script("llmjobs/admin_job.js", type="module"), Script("llmjobs/admin_copy.js", type="module")]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        result = Prefetch("result", queryset=JobResult.objects.only(*c.RESULT_COLUMNS))
        jobs = with_clock(super().get_queryset(request)).select_related("client", "tier", "pool", "home")
        return jobs.prefetch_related(result)

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        return FIELDSETS

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Job], search_term: str
    ) -> tuple[QuerySet[Job], bool]:
        found, request.search_note = job_search.search(  # type: ignore[attr-defined]
            queryset, search_term, may_see_content=may_see_content(request)
        )
        return found, False

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Job | None:
        return job_page.find(with_clock(Job.objects.all()), object_id)

    def details(self, request: HttpRequest, obj: Job) -> dict[str, Any]:
        sees = may_see_content(request)
        return {
            **shown(obj, with_content=sees),
            **job_links.shown(obj, may_revoke=self.has_cancel_permission(request)),
            "links": self.allowed_links(request, obj),  # by who asks, too
            # The event log has the text; live/ refuses whom access.py does. A WSGI server has no WebSockets.
            "follows": sees and isinstance(request, ASGIRequest),
        }

    def get_urls(self) -> list[URLPattern]:
        views = (self.parts, self.edit, self.revoke_link)
        parts, editing, revoking = (self.admin_site.admin_view(view) for view in views)
        return [
            path("<int:pk>/parts/", parts, name="llmjobs_job_parts"),
            path("<int:pk>/edit/", editing, name="llmjobs_job_edit"),
            path("<int:pk>/revoke-link/", revoking, name="llmjobs_job_revoke_link"),
            *super().get_urls(),
        ]

    def parts(self, request: HttpRequest, pk: int) -> HttpResponse:
        """What changes by itself on a job's page, which asks for it while the job goes on."""
        job = self.get_object(request, str(pk))
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None:
            raise Http404
        context = {
            **shown(job, with_content=may_see_content(request), with_request=False),
            "original": job, "opts": self.opts, "buttons": self.allowed_buttons(request, job),
            "links": self.allowed_links(request, job),
        }  # fmt: skip
        return render(request, "admin/llmjobs/job/parts.html", context)

    def edit(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Edit and requeue: job_editing.py."""
        job = self.get_object(request, str(pk))
        if not job_editing.may_edit(request) or not self.has_view_permission(request, job):
            raise PermissionDenied
        if job is None:
            raise Http404
        return job_editing.answer(self, request, job)

    def revoke_link(self, request: HttpRequest, pk: int) -> HttpResponse:
        return job_links.revoke(self, request, self.get_object(request, str(pk)))

    has_requeue_permission = job_actions.may("requeue")
    has_cancel_permission = job_actions.may("cancel")
    has_reprioritize_permission = job_actions.may("reprioritize")
    has_move_permission = job_actions.may("move")
    has_discard_permission = job_actions.may("discard")
    has_erase_permission = job_actions.may("erase")
    has_export_permission = job_actions.may("export")

    def buttons(self, obj: Job) -> list[tuple[str, str]]:
        """What can be done now; the verbs say in which states."""
        verbs = [verb for verb in VERBS.values() if obj.state in verb.acts_on and not _is_idle(verb.name, obj)]
        return [(verb.name, verb.title.removesuffix(" of")) for verb in verbs]

    def allowed_buttons(self, request: HttpRequest, obj: Job) -> list[tuple[str, str]]:
        allowed = self.get_actions(request)
        return [button for button in self.buttons(obj) if button[0] in allowed]

    def allowed_links(self, request: HttpRequest, obj: Job) -> list[tuple[str, str]]:
        if obj.state in REQUEUEABLE and job_editing.may_edit(request):
            return [(reverse("admin:llmjobs_job_edit", args=[obj.pk]), "Edit and requeue…")]
        return []


def shown(job: Job, *, with_content: bool, with_request: bool = True) -> dict[str, Any]:
    """What the templates of a job's page read; `job.details` is the rest of it."""
    job.details = job_page.load(job, with_content=with_content, with_request=with_request)  # type: ignore[attr-defined]
    return {
        "badge": c.status(job), "figures": c.figures(job), "failure": c.failure(job, with_words=with_content),
    }  # fmt: skip


def _is_idle(verb_name: str, job: Job) -> bool:
    """Whether it would do nothing, for a reason that the job's state does not tell."""
    match verb_name:
        case "cancel":
            return job.cancel_requested_at is not None
        case "discard":
            return not DeadLetter.objects.filter(job=job).exists()
        case "requeue" | "erase":
            return not JobRequest.objects.filter(job=job).exclude(prompt_hash="").exists()  # it was erased
    return False


def with_clock(jobs: QuerySet[Job]) -> QuerySet[Job]:
    """Each job with `read_at`, the database's clock: what waits or runs is measured by the clock that started it."""
    return jobs.annotate(read_at=ExpressionWrapper(Now(), DateTimeField()))
